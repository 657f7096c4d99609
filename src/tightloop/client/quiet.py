"""Notices that nothing has come for too long, at no cost per packet."""

import asyncio
from collections.abc import Callable


class Quiet:
    """Calls ``on_quiet`` once nothing has moved for ``limit_s`` seconds.

    One timer looks when something last moved: to set one anew with every read would be an operation on
    the loop's heap per token. It stops by itself after the call, else with ``stop``.
    """

    __slots__ = ("_limit_s", "_loop", "_moved_s", "_on_quiet", "_timer")

    def __init__(self, limit_s: float, on_quiet: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit_s = limit_s
        self._on_quiet = on_quiet
        self._moved_s = self._loop.time()
        self._timer = self._loop.call_later(limit_s, self._look)

    def moved(self) -> None:
        """Something came."""
        self._moved_s = self._loop.time()

    def stop(self) -> None:
        """Look no more; whom to call is forgotten. May be called twice."""
        self._timer.cancel()
        self._on_quiet = _nobody

    def _look(self) -> None:
        left_s = self._limit_s - (self._loop.time() - self._moved_s)
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._on_quiet()


def _nobody() -> None:
    """Who is called after the stop."""
