"""A host's answer on its way from a connection to whoever asked: held, pulled in pieces, or poured.

What both versions of HTTP share. A connection calls ``begin``, ``take`` and ``end`` from the callback
that read the bytes; one task at a time waits at the other side.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Final

from tightloop.engine.remote.upstream import Take

MAX_HELD_BYTES: Final = 1 << 20
"""Of an answer that nobody reads no more than about this is read from the network."""

DRAIN_TIMEOUT_S: Final = 1.0
"""How long ``finish`` waits for the end of an answer, so that its connection can be used again."""


class Answer(ABC):
    """See ``upstream.Reply``."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.is_sent = False
        """Whether the request's body went out whole."""
        self.is_paused = False
        """Whether the connection was told to wait for somebody to read what is here."""
        self._held: list[bytes] = []
        self._num_held = 0
        self._take: Take | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_ended = False
        self._error: Exception | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the head came, or never will."""
        return self.status != 0 or self._is_ended

    async def head(self) -> None:
        """Wait for the status. Raises the connection's error."""
        while not self.has_begun:
            await self._changed()
        if self._error is not None and self.status == 0:
            raise self._error

    async def pieces(self) -> AsyncIterator[bytes]:
        """See ``Reply.pieces``."""
        while True:
            if self._held:
                yield self._unheld()
            elif self._error is not None:
                raise self._error
            elif self._is_ended:
                return
            else:
                await self._changed()

    async def pour(self, take: Take) -> None:
        """See ``Reply.pour``."""
        if self._held and take(self._unheld()):
            return
        if not self._is_ended:
            self._take = take
            try:
                await self._changed()
            finally:
                self._take = None
        if self._error is not None:
            raise self._error

    async def finish(self) -> None:
        """See ``Reply.finish``."""
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self.pour(_nothing)
        except TimeoutError:
            self.close()

    def close(self) -> None:
        """See ``Reply.close``."""
        if not self._is_ended:
            self._is_ended = True
            self.give_up()
            self._wake()

    # ------------------------------------------------------------------ for the connection

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """The head came."""
        self.status = status
        self.headers = headers
        self._wake()

    def take(self, piece: bytes) -> None:
        """What one read brought of the body."""
        take, waiter = self._take, self._waiter
        if take is None or waiter is None or waiter.done():  # done: cancelled, or has enough
            self._hold(piece)
            return
        try:
            if not take(piece):
                return
        except Exception as error:  # noqa: BLE001 - raised where the reader waits
            self._error = error
        self._wake()

    def end(self, error: Exception | None) -> None:
        """Nothing more will come."""
        self._is_ended = True
        self._error = self._error or error
        self._read_on()
        self._wake()

    # ------------------------------------------------------------------ what a connection adds

    @abstractmethod
    def give_up(self) -> None:
        """Tell the connection that nobody reads the rest."""

    @abstractmethod
    def pause_reading(self, is_paused: bool) -> None:
        """Let the host wait with the rest of this answer, or go on."""

    # ------------------------------------------------------------------ inside

    def _hold(self, piece: bytes) -> None:
        self._held.append(piece)
        self._num_held += len(piece)
        if self._num_held > MAX_HELD_BYTES and not self.is_paused:
            self.is_paused = True
            self.pause_reading(True)
        self._wake()

    def _unheld(self) -> bytes:
        piece = b"".join(self._held)
        self._held.clear()
        self._num_held = 0
        self._read_on()
        return piece

    def _read_on(self) -> None:
        if self.is_paused:
            self.is_paused = False
            self.pause_reading(False)

    async def _changed(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _nothing(_piece: bytes) -> bool:
    """The rest of a body is of no interest, but its end is."""
    return False
