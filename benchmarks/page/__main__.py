"""``python -m benchmarks.page``: write docs/measured.md and its plots from the results."""

import argparse
import sys
from pathlib import Path

from benchmarks.lab.record import RESULTS
from benchmarks.page.files import DOCS, differences, write


def main() -> int:
    """0, or 1 when ``--check`` finds that something is not as it would be made."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON objects")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder to write to")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    arguments = parser.parse_args()
    if arguments.check:
        stale = differences(arguments.results, arguments.docs)
        print("\n".join(stale) or "up to date")
        return 1 if stale else 0
    for path in write(arguments.results, arguments.docs):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
