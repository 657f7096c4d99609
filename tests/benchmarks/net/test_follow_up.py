import random
from pathlib import Path

import pytest

from benchmarks.net.follow_up import COLD, STREAMED, TURNS, WAYS, Case, measure, ratios_of, rows_of
from benchmarks.net.gguf_file import Shape, write_random
from benchmarks.net.random_models import tokenizer
from tightloop.engine.registry import create_engine
from tightloop.governance.keys import KeyRing
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint

CASE = Case("tiny", 200, 200, 0.2, 1)


@pytest.mark.slow
async def test_every_way_answers_and_knows_what_it_should(tmp_path: Path) -> None:
    """A real model: cold knows nothing, the others the history, streamed most of the output too."""
    path = tmp_path / "tiny.gguf"
    shape = Shape(width=64, layers=1, heads=2, inner=96, num_context=4096)
    write_random(path, "tiny", shape, tokenizer())
    endpoint = Endpoint(create_engine(str(path)))
    server = Server(endpoint, Access(KeyRing(), "127.0.0.1"), host="127.0.0.1", port=0)
    url = await server.start()
    said: list[str] = []
    try:
        trips = await measure(CASE, url, said.append)
    finally:
        await server.stop(grace_s=0)
    assert set(WAYS) == set(trips)
    new = {way: trip.input_tokens - trip.cached_tokens for way, [trip] in trips.items()}
    assert new[COLD] == max(new.values())
    assert new[STREAMED] == min(new.values())
    rows, ratios = rows_of(CASE, trips), ratios_of(CASE, trips)
    assert list(WAYS) == [row.variant for row in rows]
    assert {1} == {ratio.num for ratio in ratios}
    assert len(said) == 2 * len(WAYS)


def test_the_order_of_the_ways_is_random_but_the_same_every_time() -> None:
    first, second = (random.Random(f"{CASE}").sample(WAYS, len(WAYS)) for _ in range(2))
    assert first == second
    assert set(TURNS) == set(WAYS)
