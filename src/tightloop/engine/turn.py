"""Whose step the backend is making, so that a cancel stops that job's evaluation and no other."""

import threading
from collections.abc import Callable

from tightloop.engine.run import Run


class Turn:
    """``take`` and ``pass_on`` belong to the owner thread, ``cancel`` and ``cancel_any`` to others.

    ``stop`` makes the running evaluation, or the next one, end early. In a step that several jobs
    share it is nobody's turn: it is short, and a cancelled job leaves after it.
    """

    def __init__(self) -> None:
        self.stop: Callable[[], None] | None = None
        self._run: Run | None = None
        self._lock = threading.Lock()

    def take(self, run: Run) -> None:
        """It is the run's turn, until somebody takes it or it is passed on."""
        if self._run is not run:  # who is alone keeps it from token to token
            with self._lock:
                self._run = run

    def pass_on(self) -> None:
        """It is nobody's turn."""
        with self._lock:
            self._run = None

    @property
    def is_cancelled(self) -> bool:
        """Whether it is the turn of a run that was cancelled."""
        return self._run is not None and self._run.is_cancelled

    def cancel(self, run: Run) -> None:
        """The run is cancelled, and what is evaluated for it just now stops."""
        with self._lock:
            run.is_cancelled = True
            if self._run is run and self.stop is not None:
                self.stop()

    def cancel_any(self) -> None:
        """Whoever has the turn is cancelled."""
        with self._lock:
            if self._run is not None and self.stop is not None:
                self._run.is_cancelled = True
                self.stop()

    def end(self) -> None:
        """There is nothing to stop any more: the backend is about to be released."""
        with self._lock:
            self.stop = None
