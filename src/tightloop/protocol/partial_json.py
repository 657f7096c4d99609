"""Incremental reading of a JSON object whose text arrives in pieces, as tool arguments do.

Only the top level is taken apart: a string value can be read while it grows (its escapes already
undone), any other value when it is complete. Pieces may be cut anywhere, also inside an escape or
between the two halves of a surrogate pair. Like the models that write it, the reader is lenient
in one point: raw line breaks and other control characters inside strings are accepted.
"""

import json
import re
from enum import IntEnum, auto
from typing import Any, Final

from msgspec import Struct

from tightloop.protocol.errors import RemoteProtocolError


class StringGrew(Struct, frozen=True, gc=False):
    """More text of the string value under ``key``, unescaped; empty texts are not reported."""

    key: str
    text: str


class ValueDone(Struct, frozen=True):
    """The value under ``key`` is complete."""

    key: str
    value: Any


Change = StringGrew | ValueDone


class _State(IntEnum):
    BEFORE_OBJECT = auto()
    BEFORE_FIRST_KEY = auto()
    BEFORE_KEY = auto()
    IN_KEY = auto()
    BEFORE_COLON = auto()
    BEFORE_VALUE = auto()
    IN_STRING = auto()
    IN_NESTED = auto()  # an object or a list
    IN_SCALAR = auto()  # a number, true, false or null
    AFTER_VALUE = auto()
    COMPLETE = auto()


_IN_STRING: Final = _State.IN_STRING  # asked at each piece; a member is searched for in its class
_COMPLETE: Final = _State.COMPLETE
_PLAIN: Final = re.compile(r'[^"\\]+')
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_SCALAR: Final = re.compile(r"[^\s,}\]]*")
_NESTED: Final = re.compile(r'[^"\\{}\[\]]+')
_SIMPLE_ESCAPES: Final = {
    '"': '"',
    "\\": "\\",
    "/": "/",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
}
_HEX: Final = re.compile(r"[0-9a-fA-F]*")
_REPLACEMENT: Final = "\ufffd"


class _StringReader:
    """Undoes the escapes of one JSON string, piece by piece."""

    __slots__ = ("_escape", "_high")

    def __init__(self) -> None:
        self._escape = ""  # an escape that is not complete yet, backslash included
        self._high = 0  # the first half of a surrogate pair

    def read(self, text: str, start: int) -> tuple[str, int, bool]:
        """The unescaped text, where reading stopped, and whether the closing quote was read.

        Raises ``ValueError`` for an escape that JSON does not have.
        """
        if not (start or self._escape or self._high or '"' in text or "\\" in text):
            return text, len(text), False  # most pieces of a long value
        out: list[str] = []
        at = start
        while at < len(text):
            if self._escape:
                at = self._continue_escape(text, at, out)
                continue
            char = text[at]
            if char == "\\":
                self._escape = "\\"
                at += 1
                continue
            if self._high:
                out.append(_REPLACEMENT)
                self._high = 0
            if char == '"':
                return "".join(out), at + 1, True
            run = _PLAIN.match(text, at)
            assert run is not None  # what stands here is neither quote nor backslash
            out.append(run[0])
            at = run.end()
        return "".join(out), at, False

    def _continue_escape(self, text: str, at: int, out: list[str]) -> int:
        if len(self._escape) == 1:
            char = text[at]
            if char == "u":
                self._escape = "\\u"
                return at + 1
            if char not in _SIMPLE_ESCAPES:
                raise ValueError(f"unknown escape \\{char}")
            self._emit(_SIMPLE_ESCAPES[char], out)
            self._escape = ""
            return at + 1
        digits = text[at : at + 6 - len(self._escape)]
        if not _HEX.fullmatch(digits):
            raise ValueError(f"bad escape {self._escape}{digits}")
        self._escape += digits
        if len(self._escape) == 6:
            code = int(self._escape[-4:], 16)
            self._escape = ""
            self._unit(code, out)
        return at + len(digits)

    def _unit(self, code: int, out: list[str]) -> None:
        """One UTF-16 unit."""
        if 0xDC00 <= code < 0xE000 and self._high:
            out.append(chr(0x10000 + ((self._high - 0xD800) << 10) + (code - 0xDC00)))
            self._high = 0
        elif 0xD800 <= code < 0xDC00:
            if self._high:
                out.append(_REPLACEMENT)
            self._high = code
        else:
            self._emit(_REPLACEMENT if 0xDC00 <= code < 0xE000 else chr(code), out)

    def _emit(self, char: str, out: list[str]) -> None:
        if self._high:
            out.append(_REPLACEMENT)
            self._high = 0
        out.append(char)


class PartialObject:
    """Reads one JSON object from pieces of its text.

    ``values`` holds the completed values; half characters (lone surrogates) in strings become
    U+FFFD. A key given twice keeps its last value.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._state = _State.BEFORE_OBJECT
        self._string = _StringReader()
        self._pieces: list[str] = []  # of the key or the value being read
        self._key = ""
        self._depth = 0
        self._in_nested_string = False
        self._nested_escape = False
        self._num_chars = 0

    @property
    def is_complete(self) -> bool:
        """Whether the object's closing brace was read."""
        return self._state is _COMPLETE

    @property
    def growing(self) -> tuple[str, str] | None:
        """Key and text so far of the string value being read, if one is."""
        if self._state is not _State.IN_STRING:
            return None
        return self._key, "".join(self._pieces)

    def feed(self, piece: str) -> list[Change]:
        """What ``piece`` adds: at most one ``StringGrew`` per value, ``ValueDone`` at its end.

        Raises ``RemoteProtocolError`` with the position when the text is not a JSON object; the
        reader is then of no further use.
        """
        changes: list[Change] = []
        at = 0
        try:
            while at < len(piece):
                at = self._advance(piece, at, changes)
        except (ValueError, RecursionError) as error:
            raise RemoteProtocolError(
                f"not a JSON object, at or after character {self._num_chars + at}: {error}"
            ) from error
        self._num_chars += len(piece)
        return changes

    def _advance(self, text: str, at: int, changes: list[Change]) -> int:
        state = self._state
        if state is _IN_STRING:
            return self._read_string(text, at, changes)
        if state is _State.IN_NESTED:
            return self._read_nested(text, at, changes)
        if state is _State.IN_KEY:
            return self._read_key(text, at)
        if state is _State.IN_SCALAR:
            return self._read_scalar(text, at, changes)
        space = _SPACE.match(text, at)
        at = space.end() if space else at
        if at < len(text):
            at = self._structure(text[at], at)
        return at

    def _structure(self, char: str, at: int) -> int:
        """One character between keys and values; the next position."""
        state = self._state
        if state is _State.BEFORE_VALUE:
            return self._begin_value(char, at)
        if char == "{" and state is _State.BEFORE_OBJECT:
            self._state = _State.BEFORE_FIRST_KEY
        elif char == '"' and state in (_State.BEFORE_FIRST_KEY, _State.BEFORE_KEY):
            self._begin(_State.IN_KEY)
        elif char == ":" and state is _State.BEFORE_COLON:
            self._state = _State.BEFORE_VALUE
        elif char == "," and state is _State.AFTER_VALUE:
            self._state = _State.BEFORE_KEY
        elif char == "}" and state in (_State.BEFORE_FIRST_KEY, _State.AFTER_VALUE):
            self._state = _State.COMPLETE
        else:
            raise ValueError(f"{char!r} is out of place")
        return at + 1

    def _begin(self, state: _State) -> None:
        self._state = state
        self._pieces = []
        self._string = _StringReader()

    def _begin_value(self, char: str, at: int) -> int:
        if char == '"':
            self._begin(_State.IN_STRING)
            return at + 1
        if char in "{[":
            self._begin(_State.IN_NESTED)
            self._depth = 0
            self._in_nested_string = self._nested_escape = False
        elif char in ",:}]":
            raise ValueError(f"{char!r} is out of place")
        else:
            self._begin(_State.IN_SCALAR)
        return at  # the value's own reader takes the character

    def _read_key(self, text: str, at: int) -> int:
        part, at, is_closed = self._string.read(text, at)
        self._pieces.append(part)
        if is_closed:
            self._key = "".join(self._pieces)
            self._state = _State.BEFORE_COLON
        return at

    def _read_string(self, text: str, at: int, changes: list[Change]) -> int:
        part, at, is_closed = self._string.read(text, at)
        if part:
            self._pieces.append(part)
            changes.append(StringGrew(self._key, part))
        if is_closed:
            self._finish_value("".join(self._pieces), changes)
        return at

    def _read_scalar(self, text: str, at: int, changes: list[Change]) -> int:
        run = _SCALAR.match(text, at)
        end = run.end() if run else at
        self._pieces.append(text[at:end])
        if end < len(text):
            self._finish_value(_loads("".join(self._pieces)), changes)
        return end

    def _read_nested(self, text: str, at: int, changes: list[Change]) -> int:
        start = at
        while at < len(text):
            run = (_PLAIN if self._in_nested_string else _NESTED).match(text, at)
            if self._nested_escape:
                self._nested_escape = False
                at += 1
                continue
            if run:
                at = run.end()
                continue
            self._nested_char(text[at])
            at += 1
            if self._depth == 0:
                self._pieces.append(text[start:at])
                self._finish_value(_loads("".join(self._pieces)), changes)
                return at
        self._pieces.append(text[start:at])
        return at

    def _nested_char(self, char: str) -> None:
        if char == '"':
            self._in_nested_string = not self._in_nested_string
        elif char == "\\":
            self._nested_escape = True
        elif not self._in_nested_string:
            self._depth += 1 if char in "{[" else -1

    def _finish_value(self, value: Any, changes: list[Change]) -> None:
        self.values[self._key] = value
        changes.append(ValueDone(self._key, value))
        self._state = _State.AFTER_VALUE


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _loads(text: str) -> Any:
    value = json.loads(text, strict=False, parse_constant=_no_constant)
    return _whole_characters(value) if "\\u" in text else value


def _whole_characters(value: Any) -> Any:
    """``value`` with lone surrogates in its strings replaced by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole_characters(entry) for entry in value]
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(entry) for key, entry in value.items()}
    return value
