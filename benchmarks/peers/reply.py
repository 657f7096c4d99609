"""What came back, byte for byte with arrival times, and the tokens in it. No input or output."""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

_TEXT = re.compile(rb'"(?:delta|content)": ?"((?:\d{9,20} )+)"')
_FINAL = re.compile(rb'"type": ?"(?:response\.(?:completed|failed|incomplete)|error)"')
_FAILED = re.compile(
    rb'"type": ?"(?:response\.failed|error)"|^(?:event: error|data: ?\{"error")', re.MULTILINE
)
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class BadReply(Exception):
    """A gateway refused, failed or lost something; the text has its own words."""


@dataclass(frozen=True, slots=True)
class Token:
    """``stamp_ns``: when the upstream wrote it; ``arrived_ns``: when the client had read it."""

    stamp_ns: int
    arrived_ns: int


class Reply(Protocol):
    """One answer being read."""

    def feed(self, data: bytes, arrived_ns: int) -> bool:
        """Take what was read; True once the answer is over."""

    def payload(self) -> Iterator[tuple[int, bytes]]:
        """Pieces of the answer without framing, and when the last byte of each had come."""


class HttpReply:
    """A streamed HTTP/1.1 response; ends with its last chunk or its stated length."""

    def __init__(self) -> None:
        self.status = 0
        self._arrivals: list[tuple[int, bytes]] = []
        self._tail = b""
        self._num_missing = -1  # of a body whose length was stated
        self._head_size = 0
        self._is_chunked = False

    def feed(self, data: bytes, arrived_ns: int) -> bool:
        """See ``Reply.feed``."""
        self._arrivals.append((arrived_ns, data))
        if not self._head_size:
            if not self._read_head():
                return False
        elif self._num_missing >= 0:
            self._num_missing -= len(data)
        self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
        return self._num_missing == 0 or (self._is_chunked and self._tail == _LAST_CHUNK)

    def _read_head(self) -> bool:
        together = b"".join(data for _, data in self._arrivals)
        head, mark, rest = together.partition(b"\r\n\r\n")
        if not mark:
            return False
        self._head_size = len(head) + 4
        self.status = int(head.split(None, 2)[1])
        lower = head.lower()
        self._is_chunked = b"transfer-encoding: chunked" in lower
        length = re.search(rb"content-length: *(\d+)", lower)
        if not self._is_chunked:
            self._num_missing = (int(length[1]) if length else 0) - len(rest)
        return True

    def payload(self) -> Iterator[tuple[int, bytes]]:
        """See ``Reply.payload``; of an answer cut short, what came whole."""
        if not self._head_size:
            return
        together = b"".join(data for _, data in self._arrivals)
        ends, total = [], 0
        for _, data in self._arrivals:
            total += len(data)
            ends.append(total)

        def arrived(end: int) -> int:
            return self._arrivals[bisect_left(ends, end)][0]

        at = self._head_size
        if not self._is_chunked:
            yield arrived(max(at, len(together))), together[at:]
            return
        while (line_end := together.find(b"\r\n", at)) >= 0:
            size = int(together[at:line_end].partition(b";")[0], 16)
            at = line_end + 2
            if not size or at + size > len(together):
                return
            # A chunk may hold many events that came one after the other.
            start = at
            for event_end in _event_ends(together, at, at + size):
                yield arrived(event_end), together[start:event_end]
                start = event_end
            at += size + 2

    def text(self) -> str:
        """The body, for an error's sake."""
        return b"".join(data for _, data in self.payload()).decode(errors="replace")[:500]


def _event_ends(data: bytes, start: int, end: int) -> Iterator[int]:
    at = data.find(b"\n\n", start, end)
    while at >= 0:
        yield at + 2
        start = at + 2
        at = data.find(b"\n\n", start, end)
    if start < end:
        yield end


class WebSocketReply:
    """The frames of one response; ``pongs`` holds the payloads of pings to answer."""

    def __init__(self) -> None:
        self.pongs: list[bytes] = []
        self.is_closed = False
        self._buffer = b""
        self._messages: list[tuple[int, bytes]] = []
        self._parts = b""

    def feed(self, data: bytes, arrived_ns: int) -> bool:
        """See ``Reply.feed``."""
        buffer = self._buffer + data if self._buffer else data
        at, is_over = 0, False
        while len(buffer) - at >= 2:
            size, body = buffer[at + 1] & 0x7F, at + 2
            if size >= 126:
                body = at + (4 if size == 126 else 10)
                if len(buffer) < body:
                    break
                size = int.from_bytes(buffer[at + 2 : body], "big")
            if len(buffer) < body + size:
                break
            first, payload = buffer[at], buffer[body : body + size]
            at = body + size
            is_over |= self._frame(first, payload, arrived_ns)
        self._buffer = buffer[at:]
        return is_over

    def _frame(self, first: int, payload: bytes, arrived_ns: int) -> bool:
        kind = first & 0x0F
        if kind == 8:
            self.is_closed = True
            return True
        if kind == 9:
            self.pongs.append(payload)
            return False
        if kind not in (0, 1, 2):
            return False
        self._parts += payload
        if not first & 0x80:
            return False
        message, self._parts = self._parts, b""
        self._messages.append((arrived_ns, message))
        return b"_text.delta" not in message and _FINAL.search(message) is not None

    def payload(self) -> Iterator[tuple[int, bytes]]:
        """See ``Reply.payload``."""
        return iter(self._messages)

    def text(self) -> str:
        """The last message, for an error's sake."""
        return self._messages[-1][1].decode(errors="replace")[:500] if self._messages else ""


def failure(reply: Reply) -> str:
    """What the answer says went wrong, "" when nothing did."""
    for _, piece in list(reply.payload())[-4:]:
        if _FAILED.search(piece):
            return piece.decode(errors="replace")[:500]
    return ""


def tokens(reply: Reply) -> list[Token]:
    """Every token that came, in order. An event may hold several."""
    found: list[Token] = []
    carried = b""
    for arrived_ns, piece in reply.payload():
        text = carried + piece if carried else piece
        end = 0
        for match in _TEXT.finditer(text):
            found += [Token(int(stamp), arrived_ns) for stamp in match[1].split()]
            end = match.end()
        # An event that a gateway cut in two ends in the next piece.
        carried = b"" if text.endswith((b"\n\n", b"}")) else text[end:]
    return found
