"""Reads keys on the event loop: from the file descriptor to a callback, with nothing in between."""

import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING

from tightloop.agent.terminal.keys import ESC_WAIT_S, Key, KeyDecoder
from tightloop.agent.terminal.typed_lines import LineDecoder

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle

_CHUNK_BYTES = 65_536


class KeyReader:
    """Calls ``on_key`` for each key until ``stop``. The end of the input is ``ctrl-d``."""

    def __init__(
        self,
        loop: "AbstractEventLoop",
        fd: int,
        on_key: Callable[[Key], None],
        *,
        is_raw: bool,
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._on_key = on_key
        self._decoder = KeyDecoder() if is_raw else LineDecoder()
        self._timer: TimerHandle | None = None
        self._is_stopped = False
        try:
            loop.add_reader(fd, self._readable)
        except OSError:  # a file, or /dev/null: always readable, so no loop can wait for it
            loop.call_soon(self._read_file)

    def stop(self) -> None:
        """No further key is reported."""
        self._cancel_timer()
        if not self._is_stopped:
            self._is_stopped = True
            self._loop.remove_reader(self._fd)

    def _readable(self) -> None:
        self._cancel_timer()
        data = self._read()
        if not data:
            self._end()
            return
        self._report(self._decoder.feed(data))
        if self._decoder.is_waiting and not self._is_stopped:
            self._timer = self._loop.call_later(ESC_WAIT_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        readable, _, _ = select.select([self._fd], [], [], 0)
        if readable:  # the loop was busy while the rest of the key came
            self._readable()
        else:
            self._report(self._decoder.flush())

    def _read_file(self) -> None:
        while not self._is_stopped and (data := self._read()):
            self._report(self._decoder.feed(data))
        if not self._is_stopped:
            self._end()

    def _end(self) -> None:
        if isinstance(self._decoder, LineDecoder):
            self._report(self._decoder.end())
        self._report([Key("ctrl-d")])
        self.stop()

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, _CHUNK_BYTES)
        except OSError:  # EIO: the terminal went away
            return b""

    def _report(self, keys: list[Key]) -> None:
        for key in keys:
            if self._is_stopped:
                return
            self._on_key(key)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
