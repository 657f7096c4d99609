import pytest

from benchmarks.net.replay import ratios_of, rows_of
from benchmarks.net.replay_client import Replay
from tightloop.trace.ledger import PARTS


def replay(path: str, pair: int, test_s: float) -> Replay:
    """A replay of which only the tests took different times."""
    parts = {**dict.fromkeys(PARTS, 0.0), "decode": 3.0, "network": 0.5, "test": test_s}
    return Replay(
        path=path,
        pair=pair,
        wall_s=3.5 + test_s,
        setup_s=0.1,
        parts=parts,
        ledger_error=0.0,
        ttft_s=0.05,
        num_round_trips=31,
        is_fixed=True,
        status="completed",
        isolation="bubblewrap",
    )


REPLAYS = [
    replay("tight", 0, 2.0),
    replay("classic", 0, 20.0),
    replay("classic", 1, 30.0),
    replay("tight", 1, 2.0),
]


def test_the_parts_of_a_row_add_up_to_its_wall() -> None:
    rows = {row.variant: row.figures for row in rows_of(REPLAYS, 0.0)}
    for figures in rows.values():
        parts = sum(figures[part].median for part in PARTS)
        assert figures["wall"].median == pytest.approx(parts)
    assert rows["classic"]["test"].median == 25.0


def test_ratios_are_taken_pair_by_pair() -> None:
    """Whatever the order in which the two were replayed."""
    found = {ratio.name: ratio for ratio in ratios_of(REPLAYS, 50.0)}
    assert (found["tools and tests, 50 ms"].median, found["wall, 50 ms"].num) == (12.5, 2)
    assert found["network and server, 50 ms"].median == 1.0
    assert found["all but decode, 50 ms"].median == pytest.approx((20.5 / 2.5 + 30.5 / 2.5) / 2)
