"""What a fleet adds to an engine: CPU time for a response, and for a batch of deltas.

An engine that answers from within ``submit`` is asked directly and through fleets, in turns, so that
all meet the same machine; CPU time of the thread, medians and quartiles over the rounds. One JSON object.

    python benchmarks/bench_fleet.py [--rounds 40]
"""

import argparse
import asyncio
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tightloop.engine.fleet.decisions import DecisionLog
from tightloop.engine.fleet.fleet import Fleet
from tightloop.engine.fleet.groups import ModelGroup
from tightloop.engine.fleet.member import Member, MemberSpec
from tightloop.engine.fleet.policy import parse_policy
from tightloop.engine.interface import (
    Engine,
    Generation,
    GenerationRequest,
    ModelInfo,
    Node,
    Sink,
)
from tightloop.protocol.deltas import Delta, EngineTiming, Finished, FinishReason, TextDelta, Usage
from tightloop.protocol.items import user_message

RESPONSES = 200
BATCHES = 2000
TEXT = [TextDelta("token ")]
LAST = [Finished(FinishReason.STOP, Usage(1000, 900, 50), EngineTiming(1, 2, 3, 4))]


class Instant:
    """An engine without any work of its own: ``num_batches`` batches of one delta, then the end."""

    def __init__(self, num_batches: int) -> None:
        self._num_batches = num_batches

    def models(self) -> Sequence[ModelInfo]:
        return INFOS

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to release."""

    async def count_input(self, _request: GenerationRequest) -> int:
        return 0

    def submit(self, _request: GenerationRequest, sink: Sink) -> Generation:
        for _ in range(self._num_batches):
            sink(TEXT)
        sink(LAST)
        return DONE


class Done:
    """Over."""

    def cancel(self) -> None:
        """Too late."""


INFOS = [ModelInfo("m", context_window=100_000)]
DONE = Done()


def member(name: str, tier: str, num_batches: int, *, max_open: int = 0) -> Member:
    return Member(MemberSpec(name, tier=tier, max_open=max_open), lambda: Instant(num_batches))


async def fleet_of(num_batches: int, size: int, log: Path | None = None) -> Fleet:
    members = [
        member(f"m{n}", "fast" if n == 0 else "bulk", num_batches, max_open=8) for n in range(size)
    ]
    group = ModelGroup("m", members, parse_policy("latency-first"))
    fleet = Fleet([group], recorder=DecisionLog(log) if log else None)
    await fleet.start()
    return fleet


def ignore(_deltas: Sequence[Delta]) -> None:
    """As cheap as a sink can be."""


REQUEST = GenerationRequest("r", "m", None, (user_message("hi"),))


def turns(engine: Engine) -> None:
    """Responses of one conversation: each the child of the one before."""
    parent: Node | None = None
    submit = engine.submit
    for n in range(RESPONSES):
        request = replace(REQUEST, response_id=f"r{n}", parent=parent)
        submit(request, ignore)
        parent = Node(request.response_id, parent, (), LAST[0].usage)


def one_long(engine: Engine) -> None:
    engine.submit(REQUEST, ignore)


async def cpu_us(work: Callable[[Engine], None], engine: Engine, per: int) -> float:
    """CPU time, with what the engine left for later steps of the loop."""
    started = time.thread_time_ns()
    work(engine)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return (time.thread_time_ns() - started) / 1e3 / per


def spread(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 3), "q1": round(low, 3), "q3": round(high, 3)}


async def measure(rounds: int, log: Path) -> dict[str, object]:
    """Every variant once a round."""
    per_turn: dict[str, Engine] = {
        "direct": Instant(1),
        "fleet of 1": await fleet_of(1, 1),
        "fleet of 2": await fleet_of(1, 2),
        "fleet of 4": await fleet_of(1, 4),
        "fleet of 2, logged": await fleet_of(1, 2, log),
    }
    per_batch: dict[str, Engine] = {
        "direct": Instant(BATCHES),
        "fleet of 2": await fleet_of(BATCHES, 2),
    }
    turn_us: dict[str, list[float]] = {name: [] for name in per_turn}
    batch_us: dict[str, list[float]] = {name: [] for name in per_batch}
    gc.disable()
    for _ in range(rounds):
        for name, engine in per_turn.items():
            turn_us[name].append(await cpu_us(turns, engine, RESPONSES))
        for name, engine in per_batch.items():
            batch_us[name].append(await cpu_us(one_long, engine, BATCHES))
        gc.collect()
    for engine in (*per_turn.values(), *per_batch.values()):
        await engine.close()
    return {
        "benchmark": "fleet",
        "rounds": rounds,
        "cpu_us_per_response": {name: spread(values) for name, values in turn_us.items()},
        "cpu_us_per_batch": {name: spread(values) for name, values in batch_us.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(arguments.rounds, Path(folder) / "decisions.jsonl"))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
