"""Clocks."""

from datetime import datetime

import pytest

from tightloop.trace.clock import ManualClock, MonotonicClock, unix_s, wall_label


def test_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(5)
    assert clock.now_ns() == 5
    clock.advance_s(0.5)
    assert clock.now_ns() == 500_000_005
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance_s(-1)


def test_monotonic_clock_never_goes_back() -> None:
    clock = MonotonicClock()
    readings = [clock.now_ns() for _ in range(100)]
    assert sorted(readings) == readings


def test_wall_time_is_a_label_in_utc() -> None:
    stamp = datetime.fromisoformat(wall_label())
    assert stamp.tzinfo is not None
    assert abs(stamp.timestamp() - unix_s()) < 5
