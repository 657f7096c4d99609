import pytest

from benchmarks.net.network_client import Block, Plan, measure
from benchmarks.net.server import AnsweringEngine, answer
from benchmarks.net.trips import KEPT, NEW, STREAMED, TIGHT, TIGHT_TUNED, TUNED
from tightloop.engine.interface import GenerationRequest
from tightloop.governance.keys import KeyRing
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint

WAYS = (NEW, KEPT, TUNED, TIGHT, TIGHT_TUNED, STREAMED)


@pytest.fixture
def engine() -> AnsweringEngine:
    return AnsweringEngine(answer)


async def test_every_way_is_measured_and_sends_what_it_should(engine: AnsweringEngine) -> None:
    """Two measured turns each, over loopback; only the tight ways send less than everything."""
    server = Server(Endpoint(engine), Access(KeyRing(), "127.0.0.1"), host="127.0.0.1", port=0)
    url = await server.start()
    block = Block(
        ways=WAYS, history="5k", history_bytes=20_000, new_bytes=2_000, idle_s=0.0, rounds=2
    )
    plan = Plan(url=url, blocks=(block,), congestion_control="", slow_start_after_idle=True)
    try:
        samples = await measure(plan)
    finally:
        await server.stop(grace_s=0)
    assert dict.fromkeys(WAYS, 2) == {
        way: sum(sample.way == way for sample in samples) for way in WAYS
    }
    sizes = {sample.way: sample.request_bytes for sample in samples}
    assert (
        max(sizes[TIGHT], sizes[TIGHT_TUNED])
        < 5_000
        < 20_000
        < min(sizes[NEW], sizes[KEPT], sizes[TUNED])
    )
    assert all(0 < sample.ttft_s <= sample.round_trip_s for sample in samples)
    assert all(sample.overhead_s is not None for sample in samples)


def test_the_server_takes_outputs_early(engine: AnsweringEngine) -> None:
    """Otherwise clients would not stream them."""
    assert [model.prefills_early for model in engine.models()] == [True]
    assert answer(GenerationRequest("r", "m", None, ()))
