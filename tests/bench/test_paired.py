"""Summaries of paired runs."""

import pytest

from tightloop.bench.paired import Spread, ratios, spread


def test_median_and_quartiles() -> None:
    assert Spread(3, 2, 4, 5) == spread([5, 1, 2, 4, 3])
    assert Spread(7, 7, 7, 1) == spread([None, 7])
    assert spread([None]) is None


def test_ratios_are_taken_pair_by_pair() -> None:
    """A drift that hits both members of a pair leaves the ratio alone."""
    classic, tight = [2.0, 20.0, 200.0], [1.0, 10.0, 100.0]
    assert Spread(2, 2, 2, 3) == ratios(classic, tight)


def test_a_pair_with_a_gap_is_left_out() -> None:
    assert Spread(3, 3, 3, 1) == ratios([None, 6.0, 1.0], [1.0, 2.0, 0.0])


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="longer"):
        ratios([1.0], [1.0, 2.0])
