from benchmarks.net.engine_client import WAYS, EngineSample
from benchmarks.net.network_engine import CASE, ratios_of, rows_of
from benchmarks.net.trips import NEW, STREAMED, TIGHT

SECONDS = {NEW: 1.0, TIGHT: 0.5, STREAMED: 0.1}
SAMPLES = [
    EngineSample(
        way=way,
        number=number,
        ttft_s=SECONDS.get(way, 0.8),
        cached_tokens=2000,
        input_tokens=3000,
    )
    for number in range(3)
    for way in WAYS
]


def test_every_way_has_its_row() -> None:
    rows = rows_of(CASE, "cubic", SAMPLES)
    assert list(WAYS) == [row.variant for row in rows]
    assert {"random-3m"} == {row.params["model"] for row in rows}
    assert rows[0].figures["ttft"].median == 1000.0


def test_streamed_prefill_is_compared_with_the_tight_way_too() -> None:
    """And no way with itself, or with streamed prefill."""
    ratios = {(ratio.of, ratio.over): ratio.median for ratio in ratios_of(CASE, "cubic", SAMPLES)}
    assert ratios[TIGHT, NEW] == 0.5
    assert round(ratios[STREAMED, TIGHT], 6) == 0.2
    assert all(of != over != STREAMED for of, over in ratios)
