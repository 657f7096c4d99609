"""Wakes an event loop from another thread, for every token.

``call_soon_threadsafe`` sends through a socket pair and makes a handle for each call; an eventfd
costs less than half of that (figures: design/0003-engine.md).
"""

import asyncio
import os
import sys
from collections.abc import Callable

_ONE = (1).to_bytes(8, sys.byteorder)
"""What an eventfd wants written; to a pipe it is eight bytes like any others."""


def open_eventfd() -> tuple[int, int]:
    """Read and write end of a new eventfd, the same descriptor (Linux)."""
    descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    return descriptor, descriptor


def open_pipe() -> tuple[int, int]:
    """Read and write end of a new pipe, for other systems."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends


_open_best = open_eventfd if hasattr(os, "eventfd") else open_pipe


class Doorbell:
    """``answer`` runs on ``loop`` soon after ``ring``; several rings may share one answer."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answer: Callable[[], None],
        *,
        open_ends: Callable[[], tuple[int, int]] = _open_best,
    ) -> None:
        self._loop = loop
        self._answer = answer
        self._read_end, self._write_end = open_ends()
        loop.add_reader(self._read_end, self._rung)

    def ring(self) -> None:
        """Callable from any thread until ``close``; never blocks."""
        try:  # noqa: SIM105 - three calls more would cost as much as the write
            os.write(self._write_end, _ONE)
        except BlockingIOError:  # full: it has been rung often enough
            pass

    def close(self) -> None:
        """No answer from now on. The ringing thread must have ended; may be called twice."""
        if self._read_end < 0:
            return
        self._loop.remove_reader(self._read_end)
        for end in {self._read_end, self._write_end}:
            os.close(end)
        self._read_end = self._write_end = -1

    def _rung(self) -> None:
        os.read(self._read_end, 4096)
        self._answer()
