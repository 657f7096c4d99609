"""``python -m benchmarks.peers``: tightloop beside its peers, experiments 1, 2 and 6."""

import argparse
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks.lab.record import QUICK_RESULTS, RESULTS, Experiment
from benchmarks.peers import concurrency, engine_level, per_token, round_trip
from benchmarks.peers.field import Field
from benchmarks.peers.gateways import GATEWAYS

EXPERIMENTS: dict[str, Callable[..., Experiment]] = {
    round_trip.NAME: round_trip.run,
    engine_level.NAME: engine_level.run,
    per_token.NAME: per_token.run,
    concurrency.NAME: concurrency.run,
}


def main() -> int:
    """1 when an experiment failed; the others are measured all the same."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="seconds instead of minutes, too few samples to quote")
    add("--only", action="append", choices=list(EXPERIMENTS), help="this experiment; repeatable")
    add("--gateway", action="append", help="these gateways alone; repeatable (default: all)")
    add("--results", type=Path, help="folder for the JSON objects")
    arguments = parser.parse_args()
    names = [gateway.name for gateway in GATEWAYS]
    unknown = set(arguments.gateway or ()) - set(names)
    if unknown:
        parser.error(f"no gateway {sorted(unknown)}; there are {names}")
    wanted = [each for each in GATEWAYS if each.name in (arguments.gateway or names)]
    results = arguments.results or (QUICK_RESULTS if arguments.quick else RESULTS)
    num_failed = 0
    # Ended from outside, it still ends what it started: the stack is left in order.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    with Field(wanted, tell) as field:
        for name in arguments.only or EXPERIMENTS:
            try:
                found = EXPERIMENTS[name](field, is_quick=arguments.quick)
            except Exception:  # noqa: BLE001 - the next experiment may still work
                traceback.print_exc()
                num_failed += 1
                continue
            found.write(results)
            print(found.table())
    return 1 if num_failed else 0


def tell(text: str) -> None:
    """A line for who waits."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
