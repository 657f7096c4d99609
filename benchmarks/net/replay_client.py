"""The agent's side of the experiment ``edit-test-replay``: replays the recording over both paths.

Reads a plan (JSON, first argument), prints what each replay took as one JSON line. Which path goes
first alternates from pair to pair.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from statistics import median

import msgspec
from msgspec import Struct

from benchmarks.net.namespaces import end_with_parent
from tightloop.bench.bugs import load_bugs
from tightloop.bench.demo import choose_isolation
from tightloop.bench.paths import ClassicPath, FixPath, FixRun, TightPath
from tightloop.trace.latency import ttft_s


class Plan(Struct, frozen=True, kw_only=True):
    """What to replay, and against which server."""

    url: str
    model: str
    bug: str
    pairs: int


class Replay(Struct, frozen=True, kw_only=True):
    """One replay over one path; ``parts`` are the ledger's, in seconds, and add up to the wall."""

    path: str
    pair: int
    wall_s: float
    setup_s: float
    parts: dict[str, float]
    ledger_error: float
    ttft_s: float
    num_round_trips: int
    is_fixed: bool
    status: str
    isolation: str


async def replay_all(plan: Plan) -> list[Replay]:
    """Every replay, pair by pair. Raises SandboxError without isolation."""
    bug = next(bug for bug in load_bugs() if bug.id == plan.bug)
    isolation, _ = await choose_isolation()
    replays: list[Replay] = []
    with tempfile.TemporaryDirectory(prefix="tightloop-replay-") as folder:
        home = Path(folder)
        classic = ClassicPath(plan.url, plan.model, isolation.kind, home / "state")
        tight = TightPath(plan.url, plan.model, isolation.kind, home / "state")
        both: tuple[FixPath, FixPath] = (classic, tight)
        try:
            for path in both:
                await path.open()
            for pair in range(plan.pairs):
                for path in both if pair % 2 == 0 else both[::-1]:
                    run = await path.fix(bug, home / f"{pair}-{path.name}" / "repository")
                    replays.append(_replay(run, pair, isolation.kind))
        finally:
            for path in both:
                await path.close()
    return replays


def _replay(run: FixRun, pair: int, isolation: str) -> Replay:
    firsts = [first for trip in run.turn.round_trips if (first := ttft_s(trip)) is not None]
    return Replay(
        path=run.path,
        pair=pair,
        wall_s=run.turn.wall_s,
        setup_s=run.setup_s,
        parts=run.ledger.parts,
        ledger_error=run.ledger.error_fraction,
        ttft_s=median(firsts) if firsts else 0.0,
        num_round_trips=len(run.turn.round_trips),
        is_fixed=run.is_fixed,
        status=run.turn.message or run.turn.status.value,
        isolation=isolation,
    )


def main() -> None:
    """Replay what the plan says, print."""
    end_with_parent()
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    print(msgspec.json.encode(asyncio.run(replay_all(plan))).decode())


if __name__ == "__main__":
    main()
