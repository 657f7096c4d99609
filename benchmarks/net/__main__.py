"""``python -m benchmarks.net [--only NAME] [--quick]``: the experiments of this package."""

import argparse
import asyncio
import importlib
import sys
import traceback
from pathlib import Path

from benchmarks.lab.record import RESULTS, Experiment

EXPERIMENTS = {
    "follow-up-ttft": "benchmarks.net.follow_up",
    "network": "benchmarks.net.network",
    "edit-test-replay": "benchmarks.net.replay",
}


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Write each result and print its table; 1 when an experiment failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.net", description=__doc__)
    parser.add_argument("--only", choices=sorted(EXPERIMENTS), action="append")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller: a rough look")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON objects")
    parser.add_argument("--no-write", action="store_true", help="print the tables only")
    arguments = parser.parse_args()
    num_failed = 0
    for name in arguments.only or EXPERIMENTS:
        module = importlib.import_module(EXPERIMENTS[name])
        try:
            found: Experiment = asyncio.run(module.run(is_quick=arguments.quick, say=say))
        except Exception:  # noqa: BLE001 - the next experiment may still work
            traceback.print_exc()
            num_failed += 1
            continue
        print(found.table(), flush=True)
        if not arguments.no_write:
            found.write(arguments.results)
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
