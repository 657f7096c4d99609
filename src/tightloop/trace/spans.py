"""Spans: named intervals that both sides of the wire stamp with the same names."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from tightloop.trace.clock import Clock, MonotonicClock


class Span(Struct, frozen=True, gc=False):
    """One interval. ``kind`` is a ledger part (see ``ledger.PARTS``) or a finer name."""

    kind: str
    start_ns: int
    end_ns: int
    label: str = ""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return (self.end_ns - self.start_ns) / 1e9


class Recorder:
    """Collects the spans of one turn in order of their end."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or MonotonicClock()
        self.spans: list[Span] = []
        self.attributes: dict[str, Any] = {}

    def add(self, kind: str, start_ns: int, end_ns: int, label: str = "") -> None:
        """File one finished interval."""
        self.spans.append(Span(kind, start_ns, end_ns, label))

    @contextmanager
    def span(self, kind: str, label: str = "") -> Iterator[None]:
        """Time the body of a ``with`` statement."""
        start_ns = self.clock.now_ns()
        try:
            yield
        finally:
            self.add(kind, start_ns, self.clock.now_ns(), label)
