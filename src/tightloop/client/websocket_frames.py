"""Frames of a WebSocket as a server sends them (RFC 6455): bytes in, text messages out. No I/O.

Why not a library's parser: design/0019, "A frame is a callback, too".
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

_LAST: Final = 0x80  # the bit of the last frame of a message
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10
_WHOLE_TEXT: Final = _LAST | _TEXT
_LEGAL: Final = frozenset(
    [
        *(is_last | opcode for opcode in (0, _TEXT, _BINARY) for is_last in (0, _LAST)),
        *(_LAST | opcode for opcode in (_CLOSE, _PING, _PONG)),
    ]
)
"""First bytes of frames: no extension was offered, so none of its bits may be set."""

_MAX_CONTROL_BYTES: Final = 125
_LENGTH_BYTES: Final = {126: 2, 127: 8}


class CloseCode(IntEnum):
    """Why a connection ends (RFC 6455, 7.4.1)."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NONE_GIVEN = 1005
    ABNORMAL = 1006
    MESSAGE_TOO_BIG = 1009


@dataclass(frozen=True, slots=True)
class Ending:
    """The peer closes the connection, or (``is_fault``) broke its rules; then ``code`` is for it."""

    code: int
    reason: str
    is_fault: bool = False


class FrameReader:
    """Reads the frames of one connection. After ``ending`` is set nothing is read any more."""

    def __init__(self, max_message_bytes: int) -> None:
        self.ending: Ending | None = None
        self.ping: bytes | None = None
        """The newest ping that came; whoever answers it sets it to None."""
        self._max_bytes = max_message_bytes
        self._message = bytearray()  # the frames so far of a message in several
        self._is_open = False  # whether there is such a message
        self._held: list[bytes] = []  # the beginning of a frame that has not come whole
        self._num_held = 0
        self._num_needed = 0  # bytes of ``_held`` without which there is nothing to do

    def feed(self, data: bytes) -> list[bytes]:
        """The text messages that are whole now, in order. UTF-8 is for the reader of the text to check."""
        texts: list[bytes] = []
        if self._held:
            data = self._with_held(data)
            if not data:
                return texts
        pos, end = 0, len(data)
        while self.ending is None and pos < end:
            first = data[pos]
            at = pos + 2
            size = data[pos + 1] if at <= end else 0
            if size > _MAX_CONTROL_BYTES:
                if size not in _LENGTH_BYTES:
                    self._break("a frame of the server is masked")
                    break
                at += _LENGTH_BYTES[size]
                size = int.from_bytes(data[pos + 2 : at], "big")
            after = at + size
            if after > end or at > end:
                self._check(first, size)
                if self.ending is None:  # else what still comes would be kept
                    self._hold(data[pos:], after - pos)
                break
            if first == _WHOLE_TEXT and not self._is_open and size <= self._max_bytes:
                texts.append(data[at:after])
            else:
                self._check(first, size)
                if self.ending is None:
                    self._take(first, data[at:after], texts)
            pos = after
        return texts

    def _check(self, first: int, size: int) -> None:
        """That such a frame may come at all, before it is waited for."""
        is_control = first & 0x0F >= _CLOSE
        if first not in _LEGAL:
            self._break(f"a frame begins with the byte {first:#04x}")
        elif is_control and size > _MAX_CONTROL_BYTES:
            self._break(f"a control frame has {size} bytes")
        elif not is_control and size + len(self._message) > self._max_bytes:
            text = f"a message has more than {self._max_bytes} bytes"
            self._break(text, CloseCode.MESSAGE_TOO_BIG)

    def _take(self, first: int, payload: bytes, texts: list[bytes]) -> None:
        """A frame that is not a whole text."""
        opcode = first & 0x0F
        if opcode == _PING:
            self.ping = payload
        elif opcode == _CLOSE:
            self._close(payload)
        elif opcode == _BINARY:
            text = "sent a binary frame; events are text frames"
            self._break(text, CloseCode.UNSUPPORTED_DATA)
        elif opcode != _PONG:
            self._add(first, payload, texts)

    def _add(self, first: int, payload: bytes, texts: list[bytes]) -> None:
        """A frame of a message in several."""
        if self._is_open == bool(first & _TEXT):
            self._break("the frames of two messages are mixed")
            return
        self._is_open = not first & _LAST
        self._message += payload
        if not self._is_open:
            texts.append(bytes(self._message))
            self._message.clear()

    def _close(self, payload: bytes) -> None:
        if len(payload) == 1:
            self._break("a close frame has half a code")
            return
        code = int.from_bytes(payload[:2], "big") if payload else CloseCode.NONE_GIVEN
        self.ending = Ending(int(code), payload[2:].decode("utf-8", "replace"))

    def _break(self, reason: str, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        if self.ending is None:
            self.ending = Ending(int(code), reason, is_fault=True)

    # ------------------------------------------------------------------ a frame in several reads

    def _hold(self, data: bytes, num_needed: int) -> None:
        self._held.append(data)
        self._num_held = len(data)
        self._num_needed = num_needed

    def _with_held(self, data: bytes) -> bytes:
        """Everything that is here, or nothing as long as it is no frame: each byte is copied once."""
        self._held.append(data)
        self._num_held += len(data)
        if self._num_held < self._num_needed:
            return b""
        data = b"".join(self._held)
        self._held.clear()
        return data
