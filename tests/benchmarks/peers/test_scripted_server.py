import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from benchmarks.peers.pacer import Pacer
from benchmarks.peers.scripted_server import PacedEngine
from benchmarks.peers.stub import Pace, State
from tightloop.engine.interface import GenerationRequest
from tightloop.protocol.deltas import Delta, Finished, FinishReason, TextDelta


@pytest.fixture
async def state() -> AsyncIterator[State]:
    made = State(Pacer(asyncio.get_running_loop()))
    yield made
    made.pacer.close()


class Collector:
    """What the sink got; ``done`` is set with the last delta."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.begun, self.done = asyncio.Event(), asyncio.Event()

    def __call__(self, batch: Sequence[Delta]) -> None:
        self.deltas += batch
        self.begun.set()
        if isinstance(batch[-1], Finished):
            self.done.set()


def request(*, generate: bool = True) -> GenerationRequest:
    return GenerationRequest("resp_1", "stub", None, (), generate=generate)


@pytest.mark.parametrize("pace", [Pace(0.0, 100), Pace(1e6, 100), Pace(0.0, 1), Pace(1000.0, 1)])
async def test_an_answer_has_its_tokens_in_order_and_one_end(state: State, pace: Pace) -> None:
    state.pace = pace
    sink = Collector()
    PacedEngine(state).submit(request(), sink)
    await sink.done.wait()
    *texts, end = sink.deltas
    stamps = [int(delta.text) for delta in texts if isinstance(delta, TextDelta)]
    assert len(stamps) == len(texts) == pace.num
    assert sorted(stamps) == stamps
    assert isinstance(end, Finished)
    assert (end.reason, end.usage.output_tokens) == (FinishReason.STOP, pace.num)


async def test_a_prewarm_says_nothing(state: State) -> None:
    sink = Collector()
    PacedEngine(state).submit(request(generate=False), sink)
    await sink.done.wait()
    assert len(sink.deltas) == 1


@pytest.mark.parametrize("rate", [0.0, 0.001])
async def test_a_cancelled_answer_ends_once(state: State, rate: float) -> None:
    """Whenever the cancel comes: before the first token, and after it."""
    state.pace = Pace(rate, 1000)
    engine = PacedEngine(state)
    before, after = Collector(), Collector()
    engine.submit(request(), before).cancel()
    running = engine.submit(request(), after)
    await after.begun.wait()
    running.cancel()
    running.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    for sink in (before, after):
        ends = [delta for delta in sink.deltas if isinstance(delta, Finished)]
        assert [end.reason for end in ends] == [FinishReason.CANCELLED]
        assert sink.deltas[-1] is ends[0]
