"""Bytes to a terminal or a pipe without ever holding up the event loop.

Until ``attach`` there is no loop, and writing waits.
"""

import contextlib
import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

DRAIN_LIMIT_S = 2.0
"""How long ``drain`` waits for a reader that takes nothing at all."""


class Output(Protocol):
    """Where frames go."""

    on_idle: Callable[[], None] | None
    """Called when everything has been taken that was not taken at once."""

    @property
    def is_idle(self) -> bool:
        """Whether everything written so far has been taken."""

    def write(self, data: bytes) -> None:
        """Takes all of it; what the other side does not take at once is kept for later."""

    def drain(self) -> None:
        """Waits until everything has been taken, or cannot be."""


class FdOutput:
    """A file descriptor. A terminal is opened once more, to be non-blocking for us alone.

    ``O_NONBLOCK`` belongs to the open file, which is shared with the shell that started us. What a
    closed pipe or a vanished terminal does not take is dropped: the program ends by other means.
    """

    def __init__(self, fd: int) -> None:
        self.on_idle: Callable[[], None] | None = None
        self._fd = fd
        self._own: int | None = None
        self._loop: AbstractEventLoop | None = None
        self._kept = b""
        self._is_broken = False
        if os.isatty(fd):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            with contextlib.suppress(OSError):  # no name: another mount namespace
                self._own = os.open(os.ttyname(fd), flags)
                self._fd = self._own

    def attach(self, loop: "AbstractEventLoop | None") -> None:
        """From now on ``loop`` writes what is not taken at once; None: there is no loop any more."""
        if self._kept:
            self.drain()
        self._loop = loop

    @property
    def is_idle(self) -> bool:
        """See ``Output``."""
        return not self._kept

    def write(self, data: bytes) -> None:
        """See ``Output``."""
        if self._is_broken:
            return
        if self._kept:
            self._kept += data
            return
        self._kept = self._taken(data)
        if self._kept and self._loop is None:
            self.drain()
        elif self._kept and self._loop is not None:
            self._loop.add_writer(self._fd, self._go_on)

    def drain(self) -> None:
        """See ``Output``."""
        while self._kept:
            _, writable, _ = select.select([], [self._fd], [], DRAIN_LIMIT_S)
            self._kept = self._taken(self._kept) if writable else b""
        self._forget_writer()

    def close(self) -> None:
        """Afterwards nothing may be written; the descriptor that was given stays open."""
        self.drain()
        if self._own is not None:
            os.close(self._own)
            self._own, self._is_broken = None, True

    def _taken(self, data: bytes) -> bytes:
        """Write as much as is taken at once; the rest."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except BlockingIOError:
            return bytes(view)
        except OSError:
            self._is_broken = True
        return b""

    def _go_on(self) -> None:
        self._kept = self._taken(self._kept)
        if not self._kept:
            self._forget_writer()
            if self.on_idle is not None:
                self.on_idle()

    def _forget_writer(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_writer(self._fd)
