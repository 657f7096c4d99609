# ruff: noqa: TID252 - started as a script, without the package above
"""A child that was forked before anybody asked for a run, with pages of its own.

Forking, and copying each page on its first change, would take a large part of a short run. A
spare child has that behind it and is otherwise what a child forked for the run would be: the
process that it comes from never changes.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
from typing import Any

from .wire import receive, send

_PR_SET_PDEATHSIG = 1
_MADV_POPULATE_WRITE = 23  # Linux 5.14; others refuse it
_MAX_BYTES = 96 << 20  # at 4 to 5 us a page, more costs more than it saves


class Spare:
    """One waiting child, seen from its parent."""

    def __init__(self, pid: int, link: socket.socket) -> None:
        self.pid = pid
        self.link = link
        self._is_ready = False

    def is_ready(self) -> bool:
        """Whether it has its pages; until then forking for a run is quicker."""
        if not self._is_ready:
            self._is_ready = bool(select.select([self.link], [], [], 0)[0])
            if self._is_ready:
                self.link.recv(1)
        return self._is_ready

    def ask(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any] | None:
        """Its answer: ``prepared``, then it is the run, or ``colder``; None when it has died."""
        with contextlib.suppress(OSError):
            send(self.link, request, fds)
            return receive(self.link)[0]
        return None

    def end(self) -> None:
        """It was not needed."""
        self.link.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def bind_to_parent(*, is_bound: bool) -> None:
    """Whether this process dies with the one that it was forked from."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if is_bound else 0, 0, 0, 0)


def own_pages() -> None:
    """Every writable page becomes this process's own, where the system can do that at once."""
    places = []
    with open("/proc/self/maps", "rb") as file:
        for line in file:
            place, mode, *_ = line.split(maxsplit=2)
            if mode == b"rw-p":
                start, end = (int(bound, 16) for bound in place.split(b"-"))
                places.append((start, end - start))
    if sum(size for _, size in places) > _MAX_BYTES:
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, size in places:
        madvise(start, size, _MADV_POPULATE_WRITE)
