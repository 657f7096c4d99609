"""The one place that reads clocks.

Durations come from the monotonic clock, in ns as ints; wall time is only a label.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Anything that can say what time it is, in monotonic nanoseconds."""

    def now_ns(self) -> int: ...


class MonotonicClock:
    """The machine's monotonic clock; the same for every process of the machine (Linux)."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary fixed point."""
        return time.monotonic_ns()


class ManualClock:
    """A clock that moves only when told: for tests and replays. Shipped, documented fake."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """The time it was last set to."""
        return self._now_ns

    def advance_s(self, seconds: float) -> None:
        """Move forward; raises ValueError for a negative step."""
        if seconds < 0:
            raise ValueError(f"a clock cannot go back, got {seconds}")
        self._now_ns += round(seconds * 1e9)


now_ns = time.monotonic_ns
"""Reading for hot paths that take no clock argument."""


def wall_label() -> str:
    """The wall time as ISO 8601 in UTC: a label for logs, never a base for durations."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def unix_s() -> int:
    """Seconds since 1970, for wire fields such as ``created_at``."""
    return int(time.time())
