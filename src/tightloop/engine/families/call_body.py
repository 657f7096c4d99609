"""Reads the JSON object of one tool call, character by character.

What is neither quote nor backslash inside a string of the arguments is passed on a run at a time:
nearly all that a model writes is in there.

``{"name": NAME, "arguments": VALUE}`` in either order; ``parameters`` stands for ``arguments``.
"""

import json
import re
from collections.abc import Callable, Collection

from tightloop.protocol.deltas import Delta, ToolCallDelta, ToolCallStarted

_SPACE = " \t\r\n"
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_ARGUMENT_KEYS = ("arguments", "parameters")
_RUN = re.compile(r'[^"\\]+')


class JsonText:
    """The inside of a JSON string, unescaped as it comes (without its quotes)."""

    def __init__(self) -> None:
        self._escape = ""
        self._high = 0

    def feed(self, char: str) -> str:
        """The character completed by ``char``, or nothing yet."""
        if not self._escape:
            if char == "\\":
                self._escape = char
                return ""
            return self._lone() + char
        if self._escape == "\\" and char != "u":
            self._escape = ""
            return self._lone() + _ESCAPES.get(char, char)
        self._escape += char
        if len(self._escape) < 6:
            return ""
        digits, self._escape = self._escape[2:], ""
        try:
            return self._unit(int(digits, 16))
        except ValueError:
            return self._lone() + "\\u" + digits

    def feed_run(self, run: str) -> str:
        """What ``feed`` gives for the characters of ``run``, none of which is a backslash."""
        return "".join(map(self.feed, run)) if self._escape else self._lone() + run

    def _unit(self, code: int) -> str:
        if 0xDC00 <= code < 0xE000 and self._high:
            high, self._high = self._high, 0
            return chr(0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00))
        lone = self._lone()
        if 0xD800 <= code < 0xDC00:
            self._high = code
            return lone
        return lone + ("\ufffd" if 0xDC00 <= code < 0xE000 else chr(code))

    def _lone(self) -> str:
        """U+FFFD for half of a pair that nothing followed."""
        lone = "\ufffd" if self._high else ""
        self._high = 0
        return lone


class JsonExtent:
    """Finds where one JSON value ends."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._is_escaped = False
        self.kind = ""  # first character of the value

    def feed(self, char: str) -> bool:
        """True when ``char`` is the last one of a string, object or array."""
        self.kind = self.kind or char
        if self._in_string:
            if self._is_escaped:
                self._is_escaped = False
            elif char == "\\":
                self._is_escaped = True
            elif char == '"':
                self._in_string = False
                return self._depth == 0
        elif char == '"':
            self._in_string = True
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
            return self._depth == 0
        return False

    @property
    def is_in_run(self) -> bool:
        """Whether characters that are neither quote nor backslash change nothing here."""
        return self._in_string and not self._is_escaped and self.kind in '{["'

    def ends_before(self, char: str) -> bool:
        """True when the value is a number or word and ``char`` is no longer part of it."""
        return bool(self.kind) and self.kind not in '{["' and char in ",}] \t\r\n"


class _RawArguments:
    """Arguments of a function tool: JSON text as it is, or the text inside a JSON string."""

    def __init__(self) -> None:
        self._text: JsonText | None = None
        self._is_first = True

    def feed(self, char: str, *, is_last: bool) -> str:
        if self._is_first:
            self._is_first = False
            if char == '"':
                self._text = JsonText()
                return ""
        if self._text is None:
            return char
        return "" if is_last else self._text.feed(char)

    def feed_run(self, run: str) -> str:
        return run if self._text is None else self._text.feed_run(run)


class _CustomInput:
    """Input of a custom tool: a JSON string, or the string under ``input`` in an object."""

    def __init__(self) -> None:
        self._raw = ""
        self._object: ObjectReader | None = None
        self._string: JsonText | None = None
        self._was_found = False

    def feed(self, char: str, *, is_last: bool) -> str:
        if self._string is not None:
            return "" if is_last else self._string.feed(char)
        if not self._was_found:
            self._raw += char
        if len(self._raw) == 1 and char == '"':
            self._string = JsonText()
            return ""
        if self._object is None:
            self._object = ObjectReader()
        text = self._inside(self._object, char)
        if is_last and not self._was_found:
            return self._raw  # not the shape we asked for: the tool sees what was written
        return text

    def feed_run(self, run: str) -> str:
        if self._string is not None:
            return self._string.feed_run(run)
        reader = self._object
        is_inside = reader is not None and reader.is_in_value and reader.extent.is_in_run
        if reader is not None and is_inside and self._was_found and reader.key == "input":
            return self._text.feed_run(run)
        return "".join(self.feed(char, is_last=False) for char in run)

    def _inside(self, reader: "ObjectReader", char: str) -> str:
        was_in_value = reader.is_in_value
        is_end = reader.feed(char)
        if reader.key != "input" or not was_in_value or reader.extent.kind != '"':
            return ""
        if not self._was_found:
            self._was_found = True
            self._text = JsonText()
            return ""
        return "" if is_end else self._text.feed(char)


class ObjectReader:
    """Walks over one JSON object; knows the key whose value is being read."""

    def __init__(self) -> None:
        self.key = ""
        self.is_in_value = self.is_closed = self.is_malformed = False
        self.extent = JsonExtent()
        self._raw_key = ""
        self._state = "open"

    def feed(self, char: str) -> bool:
        """True when ``char`` ends the current value (a string's or a container's last one)."""
        if self._state == "value":
            return self._value(char)
        if char in _SPACE and self._state != "key":
            return False
        if self._state == "open" and char == "{":
            self._state = "pair"
        elif self._state == "pair" and char == '"':
            self._raw_key, self._state = char, "key"
        elif self._state in ("pair", "comma") and char == "}":
            self.is_closed = True
        elif self._state == "comma" and char == ",":
            self._state = "pair"
        elif self._state == "key":
            self._feed_key(char)
        elif self._state == "colon" and char == ":":
            self._state, self.is_in_value = "value", True
            self.extent = JsonExtent()
        else:
            self.is_malformed = True
        return False

    def _feed_key(self, char: str) -> None:
        self._raw_key += char
        if char == '"' and not self._raw_key.endswith('\\"'):
            self.key = _json_string(self._raw_key)
            self._state = "colon"

    def _value(self, char: str) -> bool:
        if not self.extent.kind and char in _SPACE:
            return False
        if self.extent.ends_before(char):
            self._end_value()
            self.feed(char)
            return False
        if not self.extent.kind and char in ",}]":
            self.is_malformed = True
            return False
        if self.extent.feed(char):
            self._end_value()
            return True
        return False

    def _end_value(self) -> None:
        self._state, self.is_in_value = "comma", False


class CallBody:
    """The object between the tags of one call; says what it has learnt as deltas."""

    def __init__(self, new_call_id: Callable[[], str], custom_tools: Collection[str]) -> None:
        self.raw = ""
        self.is_started = self.is_complete = self.is_malformed = self.is_announced_done = False
        self._new_call_id = new_call_id
        self._custom = custom_tools
        self._reader = ObjectReader()
        self._name = ""
        self._raw_name = ""
        self._early: list[tuple[str, bool]] = []
        self._sink: _RawArguments | _CustomInput | None = None
        self._has_arguments = False

    def feed(self, text: str, deltas: list[Delta]) -> int:
        """Append what ``text`` tells; how many characters were used (all, unless it ended)."""
        used = 0
        while used < len(text) and not (self.is_complete or self.is_malformed):
            num_passed = self._pass_run(text, used, deltas)
            if num_passed:
                used += num_passed
                continue
            char = text[used]
            used += 1
            if not self.is_started:
                self.raw += char
            self._character(char, deltas)
        return used

    def _pass_run(self, text: str, start: int, deltas: list[Delta]) -> int:
        """Pass on what goes on a string of the arguments without ending it; its length."""
        reader = self._reader
        if self._sink is None or not (reader.is_in_value and reader.extent.is_in_run):
            return 0
        run = _RUN.match(text, start) if reader.key in _ARGUMENT_KEYS else None
        if run is None:
            return 0
        said = self._sink.feed_run(run[0])
        if said:
            deltas.append(ToolCallDelta(said))
        return len(run[0])

    def _character(self, char: str, deltas: list[Delta]) -> None:
        reader = self._reader
        was_in_value = reader.is_in_value
        is_end = reader.feed(char)
        if reader.is_malformed:
            self.is_malformed = True
        elif reader.is_closed:
            self._close(deltas)
        elif was_in_value and reader.extent.kind and (is_end or reader.is_in_value):
            if reader.key == "name":
                self._feed_name(char, is_end, deltas)
            elif reader.key in _ARGUMENT_KEYS:
                self._feed_argument(char, is_end, deltas)

    def _feed_name(self, char: str, is_end: bool, deltas: list[Delta]) -> None:
        self._raw_name += char
        if not is_end:
            return
        self._name = _json_string(self._raw_name)
        if not self._name:
            self.is_malformed = True
        elif self._has_arguments:
            self._start(deltas)

    def _feed_argument(self, char: str, is_end: bool, deltas: list[Delta]) -> None:
        self._has_arguments = True
        if not self._name:
            self._early.append((char, is_end))
            return
        if self._sink is None:
            self._start(deltas)
        self._pass_on(char, is_end, deltas)

    def _start(self, deltas: list[Delta]) -> None:
        is_custom = self._name in self._custom
        self._sink = _CustomInput() if is_custom else _RawArguments()
        self.is_started = True
        deltas.append(ToolCallStarted(self._new_call_id(), self._name, is_custom))
        for char, is_end in self._early:
            self._pass_on(char, is_end, deltas)

    def _pass_on(self, char: str, is_end: bool, deltas: list[Delta]) -> None:
        assert self._sink is not None
        text = self._sink.feed(char, is_last=is_end)
        if text:
            deltas.append(ToolCallDelta(text))

    def _close(self, deltas: list[Delta]) -> None:
        if not self._name:
            self.is_malformed = True
            return
        if not self.is_started:  # a call without arguments
            self._start(deltas)
            if self._name not in self._custom:
                deltas.append(ToolCallDelta("{}"))
        self.is_complete = True


def _json_string(raw: str) -> str:
    try:
        value = json.loads(raw)
    except ValueError:
        return ""
    return value if isinstance(value, str) else ""
