"""``python -m benchmarks.net [--only NAME] [--quick]``: the experiments of this package."""

import argparse
import asyncio
import importlib
import sys
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


def main() -> None:
    """Run what was asked for; write each result and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.net", description=__doc__)
    parser.add_argument("--only", choices=sorted(EXPERIMENTS), action="append")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller: a rough look")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON objects")
    parser.add_argument("--no-write", action="store_true", help="print the tables only")
    arguments = parser.parse_args()
    for name in arguments.only or EXPERIMENTS:
        module = importlib.import_module(EXPERIMENTS[name])
        found: Experiment = asyncio.run(module.run(is_quick=arguments.quick, say=say))
        print(found.table())
        if not arguments.no_write:
            found.write(arguments.results)


if __name__ == "__main__":
    main()
