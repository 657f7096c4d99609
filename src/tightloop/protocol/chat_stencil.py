"""Chunks that differ from one read before in nothing but a text, read without their JSON.

A host says the same in every chunk of an answer but for a few characters in the middle: its id, its
model, the choice. Once a chunk was read in full, the bytes around its text are a stencil: what has
the same bytes around one JSON string means the same with that string's text. ``stencil_of`` proves
that a string is where the text comes from; what a stencil does not fit is read in full.
"""

import re
from typing import Final

import msgspec

from tightloop.protocol.chat_chunk import ChoiceDelta, Chunk, Function
from tightloop.protocol.deltas import Delta, ReasoningDelta, TextDelta, ToolCallDelta

_decode_chunk: Final = msgspec.json.Decoder(Chunk).decode
_decode_text: Final = msgspec.json.Decoder(str).decode

Kind = type[TextDelta] | type[ReasoningDelta] | type[ToolCallDelta]

_KINDS: Final[dict[str, Kind]] = {
    "content": TextDelta,
    "reasoning_content": ReasoningDelta,
    "reasoning": ReasoningDelta,
}
_STRINGS: Final = re.compile(
    rb'"(?:content|reasoning_content|reasoning|arguments)": ?("(?:[^"\\]|\\.)*")'
)
_NO_TEXT: Final = b'""'
_LF: Final = 0x0A
"""No JSON string holds one: it is the end of an event."""


class Stencil:
    """The bytes around the text of one kind of delta, from ``data:`` to the end of the event."""

    __slots__ = ("_after", "_before", "_between", "_head", "_string", "_tail", "end", "kind")

    def __init__(self, before: bytes, after: bytes, end: bytes, kind: Kind) -> None:
        """``before`` ends, and ``after`` begins, with the quote of the string.

        ``end`` is that of each event, and of ``after``.
        """
        self.end = end
        self.kind = kind
        self._before = before
        self._after = after
        self._between = after + before
        self._head = slice(len(before))
        self._string = slice(len(before) - 1, 1 - len(after))  # with both quotes
        self._tail = slice(-len(after), None)

    def read(self, piece: bytes) -> list[Delta] | None:
        """The deltas of ``piece``; None when it is anything but whole events of this shape.

        An empty text is no delta. A ``ToolCallDelta`` is a piece of arguments as the host wrote it: the
        parser knows which call it is for, and whether it is the end (``more_arguments``).
        """
        if piece[self._head] != self._before or piece[self._tail] != self._after:
            return None
        string = piece[self._string]
        try:
            text = _decode_text(string)
        except (msgspec.DecodeError, UnicodeError):
            return self._read_several(piece) if _LF in string else None
        return [self.kind(text)] if text else []

    def _read_several(self, piece: bytes) -> list[Delta] | None:
        # Counted first and split at the short ends: splitting at long bytes is five times as slow.
        events = piece.split(self.end)[:-1]
        if piece.count(self._between) != len(events) - 1:
            return None  # one of them is another
        in_event = slice(self._string.start, self._string.stop + len(self.end))
        try:
            texts = [_decode_text(event[in_event]) for event in events]
        except (msgspec.DecodeError, UnicodeError):
            return None
        kind = self.kind
        return [kind(text) for text in texts if text]


def stencil_of(data: bytes, end: bytes) -> Stencil | None:
    """The stencil of the chunk ``data``, an event that ends in ``end``; None if it has none.

    It has one if it reads as text, reasoning or arguments and nothing else. That still holds with another
    text in its place, for text and reasoning as long as ``ChatStreamParser.is_plain`` does.
    """
    if _LF in data:
        return None  # it came in several lines, and the next would have to as well
    try:
        chunk = _decode_chunk(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None  # it was read as an odd one
    delta = _only_delta(chunk)
    kind = _blank(delta) if delta is not None else None
    if kind is None:
        return None
    for match in _STRINGS.finditer(data):
        before, after = data[: match.start(1)], data[match.end(1) :]
        if _decode_chunk(before + _NO_TEXT + after) == chunk:
            return Stencil(b'data: %b"' % before, b'"%b%b' % (after, end), end, kind)
    return None


def _only_delta(chunk: Chunk) -> ChoiceDelta | None:
    """The delta of a chunk that says nothing else; None for any other."""
    if not chunk.is_usual or chunk.choices is None or len(chunk.choices) != 1:
        return None
    choice = chunk.choices[0]
    return None if choice.index or choice.finish_reason or choice.error else choice.delta


def _blank(delta: ChoiceDelta) -> Kind | None:
    """Take the text out of ``delta``, and say of which kind it is; None if it is not just one."""
    said = [name for name in _KINDS if getattr(delta, name)]
    if delta.tool_calls:
        function = delta.tool_calls[0].function or Function()
        is_alone = not (said or delta.refusal) and len(delta.tool_calls) == 1
        if not is_alone or function.name or not isinstance(function.arguments, str):
            return None
        has_text, function.arguments = bool(function.arguments), ""
        return ToolCallDelta if has_text else None
    if len(said) != 1 or delta.refusal:
        return None
    setattr(delta, said[0], "")
    return _KINDS[said[0]]
