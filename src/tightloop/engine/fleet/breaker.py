"""A circuit breaker: stops asking a backend that keeps failing, and finds out when it is back.

Whoever wants to ask gets a ticket first, and reports with it how it went. A ticket is the number of
the breaker's epoch, which a change of state ends: what began before the change says nothing about
the state after it. Sans-I/O: time is what the caller says it is, in ns of ``trace.clock``.
"""

from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

MAX_RESULTS: Final = 1000
"""Of a window, however many there are in it."""


class State(IntEnum):
    """What the breaker lets through: everything, nothing, or one request as a probe."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2


class Signal(IntEnum):
    """What can happen to a breaker. ``TRIP`` is a failure that was one too many."""

    SUCCESS = 0
    FAILURE = 1
    TRIP = 2
    PAUSE_OVER = 3


TRANSITIONS: Final[dict[tuple[State, Signal], State]] = {
    (State.CLOSED, Signal.SUCCESS): State.CLOSED,
    (State.CLOSED, Signal.FAILURE): State.CLOSED,
    (State.CLOSED, Signal.TRIP): State.OPEN,
    (State.OPEN, Signal.SUCCESS): State.CLOSED,  # of a request that was forced through
    (State.OPEN, Signal.FAILURE): State.OPEN,
    (State.OPEN, Signal.TRIP): State.OPEN,
    (State.OPEN, Signal.PAUSE_OVER): State.HALF_OPEN,
    (State.HALF_OPEN, Signal.SUCCESS): State.CLOSED,
    (State.HALF_OPEN, Signal.FAILURE): State.OPEN,
    (State.HALF_OPEN, Signal.TRIP): State.OPEN,
}
"""Only an open breaker has a pause that can be over."""


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When it opens, and for how long.

    It opens after ``max_consecutive`` failures in a row, or when of at least ``min_requests`` within
    ``window_s`` the share ``max_error_rate`` failed. The first pause is ``pause_s``; each probe that
    fails doubles it, up to ``max_pause_s``.
    """

    max_consecutive: int = 3
    max_error_rate: float = 0.5
    min_requests: int = 10
    window_s: float = 30.0
    pause_s: float = 1.0
    max_pause_s: float = 60.0


class CircuitBreaker:
    """The breaker of one backend."""

    def __init__(self, settings: BreakerSettings | None = None) -> None:
        self.settings = settings or BreakerSettings()
        self._state = State.CLOSED
        self._epoch = 0
        self._has_probe = False
        self._until_ns = 0
        self._is_asked_to_wait = False
        self._num_trips = 0
        self._num_consecutive = 0
        self._num_failed = 0
        self._results: deque[tuple[int, bool]] = deque()

    def state(self, now_ns: int) -> State:
        """The state at ``now_ns``: a pause ends by itself."""
        if self._state is State.OPEN and now_ns >= self._until_ns:
            self._step(Signal.PAUSE_OVER)
        return self._state

    def is_admitting(self, now_ns: int) -> bool:
        """Whether ``admit`` would give a ticket."""
        if self._state is State.CLOSED:
            return True
        return self.state(now_ns) is State.HALF_OPEN and not self._has_probe

    def pause_left_s(self, now_ns: int) -> float:
        """Seconds until it lets a probe through; 0 when it is not open."""
        if self.state(now_ns) is not State.OPEN:
            return 0.0
        return (self._until_ns - now_ns) / 1e9

    def is_asked_to_wait(self, now_ns: int) -> bool:
        """Whether it is open because the backend itself said for how long to leave it alone."""
        return self.state(now_ns) is State.OPEN and self._is_asked_to_wait

    def admit(self, now_ns: int) -> int | None:
        """A ticket, or None. In half-open state there is one ticket: the probe's."""
        if not self.is_admitting(now_ns):
            return None
        if self._state is State.HALF_OPEN:
            self._has_probe = True
        return self._epoch

    def force(self, now_ns: int) -> int:
        """A ticket in any state, for whoever has nobody else to ask."""
        self.state(now_ns)
        return self._epoch

    def succeed(self, ticket: int, now_ns: int) -> int:
        """The backend answered; the ticket to report with from now on."""
        if ticket == self._epoch:
            self._num_consecutive = 0
            self._note(now_ns, is_failure=False)
            if self._state is not State.CLOSED:  # where a success changes nothing, and comes often
                self._step(Signal.SUCCESS)
            return self._epoch
        return ticket

    def fail(self, ticket: int, now_ns: int, *, retry_after_s: float | None = None) -> None:
        """The backend failed; with ``retry_after_s`` it asked to be left alone for that long."""
        if ticket != self._epoch:
            return
        self._num_consecutive += 1
        self._note(now_ns, is_failure=True)
        was_open = self._state is State.OPEN
        is_trip = retry_after_s is not None or self._is_too_much()
        self._step(Signal.TRIP if is_trip else Signal.FAILURE)
        if self._state is State.OPEN and not was_open:
            self._pause(now_ns, retry_after_s)

    def release(self, ticket: int) -> None:
        """The request ended without a word about the backend, as when its client cancelled it."""
        if ticket == self._epoch:
            self._has_probe = False

    def _pause(self, now_ns: int, retry_after_s: float | None) -> None:
        self._num_trips += 1
        settings = self.settings
        pause_s = min(settings.pause_s * 2.0 ** min(self._num_trips - 1, 30), settings.max_pause_s)
        self._is_asked_to_wait = retry_after_s is not None
        self._until_ns = now_ns + round(max(pause_s, retry_after_s or 0.0) * 1e9)

    def _is_too_much(self) -> bool:
        settings, num = self.settings, len(self._results)
        if self._num_consecutive >= settings.max_consecutive:
            return True
        return num >= settings.min_requests and self._num_failed >= settings.max_error_rate * num

    def _note(self, now_ns: int, *, is_failure: bool) -> None:
        results = self._results
        results.append((now_ns, is_failure))
        self._num_failed += is_failure
        oldest_ns = now_ns - round(self.settings.window_s * 1e9)
        while results[0][0] < oldest_ns or len(results) > MAX_RESULTS:
            self._num_failed -= results.popleft()[1]

    def _step(self, signal: Signal) -> None:
        after = TRANSITIONS[self._state, signal]
        if after is self._state:
            return
        self._state = after
        self._epoch += 1
        self._has_probe = False
        if after is State.CLOSED:
            self._num_trips = self._num_consecutive = self._num_failed = 0
            self._results.clear()
