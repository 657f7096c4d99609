"""Asking again in the course of a turn: waits, tells the user, and keeps account of the time lost."""

from collections.abc import Callable

from tightloop.agent import events as said
from tightloop.agent.budget import Budget
from tightloop.agent.resilience import Failure, Patience, trouble_of
from tightloop.trace.clock import Clock
from tightloop.trace.spans import Span


class Repeats:
    """For the turns of one conversation. Time lost becomes spans of kind ``waiting``."""

    def __init__(self, patience: Patience, clock: Clock, say: Callable[[said.Event], None]) -> None:
        self.num_retries = 0
        """In this turn."""
        self._patience = patience
        self._clock = clock
        self._say = say
        self._spans: list[Span] = []
        self._num_in_a_row = 0
        self._why_not = ""

    def begin_turn(self, spans: list[Span]) -> None:
        """Spans go here from now on."""
        self._spans = spans
        self.num_retries = self._num_in_a_row = 0
        self._why_not = ""

    def note_progress(self) -> None:
        """A response has ended: what comes is another trouble."""
        self._num_in_a_row = 0

    def note_resumed(self, number: int) -> None:
        """Responses were read on over another connection."""
        if number:
            self.num_retries += number
            reason = "connection lost; the response was read on over another one"
            self._say(said.Retrying(reason, 0.0, 0, self._patience.max_tries))

    async def wait(self, failure: Failure, since_ns: int, budget: Budget) -> None:
        """Return when it is time to ask again; raises ``failure`` when there is no use in it.

        ``since_ns`` is when the time that it cost began.
        """
        trouble = trouble_of(failure)
        pause_s = self._patience.pause_s(self._num_in_a_row + 1, trouble)
        if pause_s is None or pause_s >= budget.rest_s:
            self._why_not = self._patience.gave_up(self._num_in_a_row, trouble)
            if pause_s is not None:
                self._why_not = f"{pause_s:.0f} s to wait, {budget.rest_s:.0f} s left for the turn"
            self._spans.append(Span("waiting", since_ns, self._clock.now_ns(), trouble.reason))
            raise failure
        self._num_in_a_row += 1
        self.num_retries += 1
        most = self._patience.max_tries
        self._say(said.Retrying(trouble.reason, round(pause_s, 3), self._num_in_a_row, most))
        try:
            await self._patience.sleep(pause_s)
        finally:
            self._spans.append(Span("waiting", since_ns, self._clock.now_ns(), trouble.reason))

    def words(self, failure: Exception) -> str:
        """What the user is told of a failure that ended the turn."""
        return f"{failure} ({self._why_not})" if self._why_not else str(failure)
