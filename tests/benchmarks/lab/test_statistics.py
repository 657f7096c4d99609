import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.lab.statistics import paired_ratio, unpaired_ratio

POSITIVE = st.floats(0.001, 1000.0)


def test_pairs_are_compared_round_by_round() -> None:
    """A drift that both series share does not widen the interval."""
    found = paired_ratio("ttft", "peer", "ours", [2.0, 20.0, 200.0], [1.0, 10.0, 100.0])
    assert (found.median, found.low, found.high, found.num) == (2.0, 2.0, 2.0, 3)


def test_rounds_that_lack_one_side_are_left_out() -> None:
    found = paired_ratio("ttft", "peer", "ours", [3.0, None, 5.0], [1.0, 1.0, 0.0])
    assert (found.median, found.num) == (3.0, 1)


def test_no_pair_is_an_error_that_names_both() -> None:
    with pytest.raises(ValueError, match="no round has both 'peer' and 'ours' for 'ttft'"):
        paired_ratio("ttft", "peer", "ours", [None], [1.0])


def test_series_without_rounds_are_compared_by_their_medians() -> None:
    found = unpaired_ratio("rss", "peer", "ours", [30.0, 30.0], [10.0, 10.0, 10.0])
    assert (found.median, found.low, found.high, found.num) == (3.0, 3.0, 3.0, 2)


@pytest.mark.parametrize(("above", "below"), [([], [1.0]), ([1.0], []), ([0.0], [1.0])])
def test_what_has_no_ratio_is_refused(above: list[float], below: list[float]) -> None:
    with pytest.raises(ValueError, match="'peer' or 'ours' for 'rss'"):
        unpaired_ratio("rss", "peer", "ours", above, below)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=20))
def test_an_interval_lies_within_the_samples(pairs: list[tuple[float, float]]) -> None:
    """And is the same each time it is computed."""
    above, below = zip(*pairs, strict=True)
    found = paired_ratio("x", "a", "b", above, below)
    ratios = [top / bottom for top, bottom in pairs]
    assert min(ratios) <= found.low <= found.high <= max(ratios)
    assert paired_ratio("x", "a", "b", above, below) == found
