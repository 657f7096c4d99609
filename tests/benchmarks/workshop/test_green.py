"""What counts as green, and how sure a share is."""

from pathlib import Path

import pytest

from benchmarks.workshop.green import MODES, Tally, interval, name_of, passes
from tightloop.bench.bugs import load_bugs


def test_the_verdict_is_that_of_the_bugs_own_tests(tmp_path: Path) -> None:
    """The function as it was passes, with its bug it does not."""
    bug = load_bugs()[0]
    assert passes(bug, bug.module, tmp_path / "fixed")
    assert not passes(bug, bug.buggy_module, tmp_path / "buggy")


@pytest.mark.parametrize(
    ("num", "total", "low", "high"),
    [(0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0), (5, 10, 0.237, 0.763)],
)
def test_intervals_of_shares(num: int, total: int, low: float, high: float) -> None:
    """Values of Wilson's formula, rounded."""
    assert interval(num, total) == pytest.approx((low, high), abs=1e-3)


def test_failures_are_counted_and_not_timed() -> None:
    assert Tally([1.0, None, 3.0]).num_green == 2
    assert [name_of(wanted) for wanted in MODES] == ["single", "retry 3", "race 3"]
