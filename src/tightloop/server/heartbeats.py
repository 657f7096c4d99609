"""One timer for the heartbeats of all responses of a server.

A timer of its own for each response costs more than the response's other dealings with the loop: it is
pushed onto a heap and cancelled milliseconds later, where it stays until its time has come.
"""

import asyncio
from typing import Final, Protocol

TICKS: Final = 4
"""How often within one heartbeat the responses are looked at."""


class Beating(Protocol):
    """Something that must not be silent for too long."""

    def beat_after(self, silence_s: float) -> None:
        """Say something if nothing was said for ``silence_s``. May be the end of it."""


class Heartbeats:
    """Sees to it that whoever is in here is not silent for longer than ``heartbeat_s``.

    Looked at four times in that time, each one speaks after three quarters of it at the earliest.
    """

    def __init__(self, heartbeat_s: float) -> None:
        self._tick_s = heartbeat_s / TICKS
        self._members: dict[Beating, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_ticking(self) -> bool:
        """Whether a timer is set. It runs out at the first tick that finds nobody."""
        return self._timer is not None

    def add(self, member: Beating) -> None:
        """Look after ``member`` until it is removed. Called on the event loop."""
        self._members[member] = None
        if self._timer is None:
            self._set()

    def remove(self, member: Beating) -> None:
        """Look after it no longer. Nothing happens if it was not looked after."""
        self._members.pop(member, None)

    def _set(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._members:
            self._set()
        for member in list(self._members):
            member.beat_after((TICKS - 1) * self._tick_s)
