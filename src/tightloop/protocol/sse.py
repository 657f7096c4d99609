"""Server-sent events: framing, and an incremental decoder.

Source: WHATWG HTML, section 9.2 "Server-sent events". ``id`` and ``retry`` fields are ignored:
none of the APIs spoken here uses them.
"""

import re
from typing import Final, NamedTuple

from tightloop.protocol.errors import RemoteProtocolError

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
"""Largest event accepted, the field names included. A security limit: a peer that never ends a
line cannot take more memory than this. A Response object repeats the tools and the whole output,
so a few megabytes are legitimate."""

DONE: Final = b"data: [DONE]\n\n"
"""The frame after the last event."""

DONE_DATA: Final = b"[DONE]"
"""Its data, as ``SseDecoder`` gives it."""

EVENT_ENDS: Final = (b"\r\n\r\n", b"\n\n")
"""How an event ends. After one of these a decoder is in the middle of nothing."""


class SseEvent(NamedTuple):
    """One event: its type (``message`` when the stream names none) and its data, undecoded."""

    event: str
    data: bytes


def encode(event_json: bytes, type: str) -> bytes:
    """The frame of one event whose JSON holds no line break (ours never does)."""
    return b"event: %b\ndata: %b\n\n" % (type.encode(), event_json)


def frame(event_json: bytes) -> bytes:
    """The frame of an event from ``ResponseStream``, whose JSON starts with its type."""
    return b"event: %b\ndata: %b\n\n" % (event_json.split(b'"', 4)[3], event_json)


_LF: Final = 0x0A  # looked for as numbers: bytes in bytes raises and drops an exception first
_CR: Final = 0x0D

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class SseDecoder:
    """Turns bytes, cut anywhere, into events. Raises ``RemoteProtocolError`` past the limit.

    An event is given out when its blank line has been read, so what is left at the end of the
    stream is incomplete and is dropped, as the standard says.
    """

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._partial: list[bytes] = []  # pieces of a line whose end has not come yet
        self._is_start = True  # a byte order mark may come
        self._skip_newline = False  # the last byte was \r: a \n now belongs to it
        self._num_partial = 0  # bytes in them
        self._num_bytes = 0  # of the complete lines of the event being read
        self._event = ""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that ``chunk`` completes."""
        if self._skip_newline and chunk:
            self._skip_newline = False
            if chunk[0] == _LF:
                chunk = chunk[1:]
        if not chunk:
            return []
        if self._is_one_event(chunk):
            return [SseEvent("message", chunk[6:-2])]
        if _LF not in chunk and _CR not in chunk:
            # Kept as pieces: joining at each chunk would make a long line cost its square.
            self._partial.append(chunk)
            self._num_partial += len(chunk)
            self._check_size()
            return []
        lines = self._split(chunk)
        events: list[SseEvent] = []
        for line in lines:
            if not line:
                self._dispatch(events)
            elif line.startswith(b"data: "):  # nearly every line; the rest says it in general
                self._add_data(line[6:])
            else:
                self._field(line)
        self._check_size()
        return events

    def _is_one_event(self, chunk: bytes) -> bool:
        """Whether ``chunk`` is nothing but one line of data, as most packets of a stream are.

        The way below comes to the same, in more than twice the time.
        """
        return (
            chunk.startswith(b"data: ")
            and chunk.find(b"\n") == len(chunk) - 2
            and chunk[-1] == _LF
            and not (self._num_partial or self._data or self._event or self._is_start)
            and _CR not in chunk
            and len(chunk) <= self._max_event_bytes
        )

    def _split(self, chunk: bytes) -> list[bytes]:
        """The complete lines; the rest is kept."""
        if _CR in chunk:
            lines = _LINE_END.split(chunk)
            self._skip_newline = chunk[-1] == _CR
        else:
            lines = chunk.split(b"\n")
        lines[0] = b"".join((*self._partial, lines[0]))
        self._partial = [lines.pop()]
        self._num_partial = len(self._partial[0])
        if self._is_start:
            self._is_start = False
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        return lines

    def _check_size(self) -> None:
        if self._num_bytes + self._num_partial > self._max_event_bytes:
            raise RemoteProtocolError(
                f"an event is longer than {self._max_event_bytes} bytes; raise max_event_bytes "
                "if the peer can be trusted"
            )

    def _field(self, line: bytes) -> None:
        name, _colon, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._add_data(value)
        elif name == b"event":
            self._num_bytes += len(value)
            self._event = value.decode("utf-8", "replace")

    def _add_data(self, value: bytes) -> None:
        self._num_bytes += len(value) + 1  # the line break counts, or empty lines were free
        if self._num_bytes > self._max_event_bytes:
            self._check_size()
        self._data.append(value)

    def _dispatch(self, events: list[SseEvent]) -> None:
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            events.append(SseEvent(self._event or "message", data))
            self._data = []
        self._event = ""
        self._num_bytes = 0
