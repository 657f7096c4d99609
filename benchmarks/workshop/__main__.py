"""``python -m benchmarks.workshop``: the tool side beside its alternatives, about five minutes."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.lab.progress import Progress
from benchmarks.lab.record import QUICK_RESULTS, RESULTS, Experiment
from benchmarks.workshop import commands, green, patches, rounds, tool_calls, warm_runs, workspaces

EXPERIMENTS: dict[str, Callable[..., Experiment]] = {
    commands.NAME: commands.run_experiment,
    workspaces.NAME: workspaces.run_experiment,
    warm_runs.NAME: warm_runs.run_experiment,
    patches.NAME: patches.run_experiment,
    tool_calls.NAME: tool_calls.run_experiment,
    rounds.NAME: rounds.run_experiment,
    green.NAME: green.run_experiment,
}


def main() -> int:
    """1 when an experiment failed; the others are measured all the same."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workshop", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="a rough look, too few samples to quote")
    add("--only", action="append", choices=list(EXPERIMENTS), help="this experiment; repeatable")
    add("--here", action="store_true", help="in this process, not in one for each experiment")
    add("--results", type=Path, help="folder for the JSON objects")
    arguments = parser.parse_args()
    results = arguments.results or (QUICK_RESULTS if arguments.quick else RESULTS)
    # Ended from outside, it still ends what it started.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    names = arguments.only or list(EXPERIMENTS)
    if arguments.here:
        for name in names:
            found = EXPERIMENTS[name](is_quick=arguments.quick)
            found.write(results)
            print(found.table())
        return 0
    progress = Progress("the workshop", len(names))
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    num_failed = 0
    for name in names:
        # Each in a process of its own: one may fail, and one moves into a namespace, with one thread.
        argv = [sys.executable, "-m", "benchmarks.workshop", "--here", "--only", name]
        argv += ["--results", str(results.resolve()), *(["--quick"] if arguments.quick else [])]
        num_failed += subprocess.run(argv, env=environment, check=False).returncode != 0
        progress.step(name)
    progress.end()
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
