"""Ends an answer at a stop string in its text. Calls and reasoning may hold one: they are no text."""

from collections.abc import Iterable, Sequence

from tightloop.engine.families.text_stream import StopStrings
from tightloop.protocol.deltas import Delta, TextDelta, ToolCallDone


class StopWatch:
    """Passes deltas on up to the first of some stop strings."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = StopStrings(stops)
        self.is_needed = any(stops)
        self.num_calls = 0
        """Complete calls passed on."""

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was seen."""
        return self._stops.is_stopped

    @property
    def stopped_by(self) -> str | None:
        """The stop string that was seen."""
        return self._stops.stopped_by

    def feed(self, deltas: Iterable[Delta]) -> list[Delta]:
        """What may be given out now; after a stop string, nothing more."""
        passed: list[Delta] = []
        for delta in deltas:
            if self.is_stopped:
                break
            if isinstance(delta, TextDelta):
                _add(passed, self._stops.feed(delta.text))
                continue
            _add(passed, self._stops.finish())  # no stop string goes on after a call
            self.num_calls += isinstance(delta, ToolCallDone)
            passed.append(delta)
        return passed

    def finish(self) -> list[Delta]:
        """What was held back, now that nothing follows."""
        passed: list[Delta] = []
        if not self.is_stopped:
            _add(passed, self._stops.finish())
        return passed


def _add(deltas: list[Delta], text: str) -> None:
    if text:
        deltas.append(TextDelta(text))
