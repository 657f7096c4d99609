"""Lines of standard input as they come, whatever it is: a pipe, a terminal, a file."""

import asyncio
import os
import threading
from collections.abc import Callable

from tightloop.harness.inputs import MAX_LINE_BYTES

_PIECE_BYTES = 1 << 16


class LineReader:
    """Hands each line to ``take`` on the running loop, then calls ``end`` once.

    A thread reads, because a file cannot be waited for; it holds no lock of the interpreter's own
    stream, so the process can end while it waits. A line that is too long is handed on cut, behind
    which nothing is a line of its own.
    """

    def __init__(self, take: Callable[[bytes], None], end: Callable[[], None], fd: int = 0) -> None:
        self._take = take
        self._end = end
        self._fd = fd
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Begin to read."""
        threading.Thread(target=self._read, name="stdin", daemon=True).start()

    def _read(self) -> None:
        rest = b""
        is_skipping = False
        while piece := self._piece():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if not is_skipping:
                    self._call(self._take, line)
                is_skipping = False
            if len(rest) > MAX_LINE_BYTES:
                if not is_skipping:
                    self._call(self._take, rest)
                rest, is_skipping = b"", True
        if rest and not is_skipping:
            self._call(self._take, rest)
        self._call(self._end)

    def _piece(self) -> bytes:
        try:
            return os.read(self._fd, _PIECE_BYTES)
        except OSError:
            return b""

    def _call(self, function: Callable[..., None], *arguments: bytes) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody wants to know any more
            return
