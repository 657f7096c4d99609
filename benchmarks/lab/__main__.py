"""``python -m benchmarks.lab``: every measurement of the project, then one table of all ratios.

``make bench`` runs it. The peers' experiments, those of the network and of the tool side, and the small
programs run one after the other, each in a process of its own; one that fails does not keep the others
from running, and makes the exit status 1. A quick run is for trying things out: its results stay out of benchmarks/results.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.lab.machine import this_machine
from benchmarks.lab.progress import Progress
from benchmarks.lab.record import QUICK_RESULTS, RESULTS
from benchmarks.lab.report import experiments, report
from tightloop.trace.clock import wall_label

BENCHMARKS = Path(__file__).resolve().parent.parent
SMALL = "small"
"""Folder of what the small programs print: figures of their own form."""


WARM_ROUNDS = "7"
"""Rounds of each test file of the real projects; half a minute each."""


SMALL_LIMIT_S = 300.0
"""Several times what any of them takes on a machine that does nothing else."""


def parts(*, is_quick: bool, results: Path) -> dict[str, list[str]]:
    """Name and command of each; the small programs print JSON."""
    quick = ["--quick"] if is_quick else []
    python = sys.executable
    found = {
        "peers": [python, "-m", "benchmarks.peers", *quick, "--results", str(results)],
        "net": [python, "-m", "benchmarks.net", *quick, *(["--no-write"] if is_quick else [])],
    }
    found["workshop"] = [python, "-m", "benchmarks.workshop", *quick, "--results", str(results)]
    found["warm"] = [python, "-m", "benchmarks.warm.speed", "--rounds", WARM_ROUNDS, *quick]
    for script in sorted(BENCHMARKS.glob("bench_*.py")):
        found[script.stem] = [python, "-m", f"benchmarks.{script.stem}"]
    return found


def run(name: str, command: list[str], results: Path) -> bool:
    """Whether it ended well; what a small program prints is also kept."""
    if not name.startswith("bench_"):
        return subprocess.run(command, cwd=BENCHMARKS.parent, check=False).returncode == 0
    try:
        done = subprocess.run(
            command,
            cwd=BENCHMARKS.parent,
            check=False,
            stdout=subprocess.PIPE,
            text=True,
            timeout=SMALL_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        print(f"{name}: no end in {SMALL_LIMIT_S:.0f} s", file=sys.stderr, flush=True)
        return False
    print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        return False
    try:
        kept = with_facts(done.stdout)
    except msgspec.DecodeError as error:
        print(f"{name} printed no JSON object: {error}", file=sys.stderr, flush=True)
        return False
    folder = results / SMALL
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name.removeprefix('bench_')}.json").write_bytes(kept)
    return True


def with_facts(printed: str) -> bytes:
    """What a small program printed, with the machine and the date where it does not say them itself.

    Raises ``msgspec.DecodeError`` for anything but a JSON object.
    """
    found = msgspec.json.decode(printed, type=dict[str, Any])
    facts = {"made": wall_label()[:10], "machine": msgspec.to_builtins(this_machine())}
    return msgspec.json.format(msgspec.json.encode(facts | found), indent=1) + b"\n"


def main() -> int:
    """0 when everything was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lab", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a rough look, in a few minutes")
    parser.add_argument(
        "--only", action="append", help="this part: peers, net, workshop, warm or bench_NAME"
    )
    arguments = parser.parse_args()
    results = QUICK_RESULTS if arguments.quick else RESULTS
    wanted = parts(is_quick=arguments.quick, results=results)
    unknown = set(arguments.only or ()) - set(wanted)
    if unknown:
        parser.error(f"there is no part {sorted(unknown)}; there are {list(wanted)}")
    names = arguments.only or list(wanted)
    progress = Progress("all measurements", len(names))
    failed = []
    for name in names:
        print(f"== {name}", file=sys.stderr, flush=True)
        if not run(name, wanted[name], results):
            failed.append(name)
        progress.step(name)
    progress.end()
    print(report(experiments(results)), end="")
    if not arguments.quick:
        run("page", [sys.executable, "-m", "benchmarks.page"], results)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
