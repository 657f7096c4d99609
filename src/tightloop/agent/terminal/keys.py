"""Bytes from a terminal in raw mode become keys. No I/O, any cut of the bytes gives the same keys.

Names are ``text`` (typed characters, in ``Key.text``), ``paste`` (one bracketed paste, likewise), or
a key: ``enter``, ``tab``, ``esc``, ``backspace``, ``left``, ``f5``, a letter, with ``ctrl-``,
``alt-`` and ``shift-`` before it, in this order. The grammar is that of ECMA-48 control sequences
rather than a table of known ones, so an unknown key never becomes text.

The one thing that time decides: an escape character alone is the Esc key if nothing follows it.
Whoever reads asks ``is_waiting`` and, after ``ESC_WAIT_S``, calls ``flush``.
"""

import codecs
import re
from dataclasses import dataclass

ESC_WAIT_S = 0.02
"""What follows an escape character of the same key comes with the same write of the terminal."""

MAX_PASTE_CHARS = 4_000_000
"""What is beyond it in one paste is dropped, so that a paste without an end cannot fill the memory."""

_CSI = re.compile(r"\x1b\[(?P<private>[<=>?]?)(?P<parameters>[0-9:;]*)[ -/]*(?P<final>[@-~])")
_CSI_BEGUN = re.compile(r"\x1b\[[<=>?]?[0-9:;]*[ -/]*$")
_CONSOLE_FUNCTION_KEY = re.compile(r"\x1b\[\[([A-E])")
_SS3 = re.compile(r"\x1bO([0-9;]*)([A-Za-z])")
_SS3_BEGUN = re.compile(r"\x1bO[0-9;]*$")
_TEXT = re.compile("[^\x00-\x1f\x7f-\x9f]+")
_AMBIGUOUS = frozenset(
    {
        "\x1b\x1b",
        *[
            twice + begun
            for twice in ("", "\x1b")
            for begun in ("\x1b", "\x1b[", "\x1bO", "\x1b[[")
        ],
    }
)
_PASTE_END = "\x1b[201~"

_CONTROLS = {
    "\r": "enter",
    "\t": "tab",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x00": "ctrl-space",
    "\x1c": "ctrl-\\",
    "\x1d": "ctrl-]",
    "\x1e": "ctrl-^",
    "\x1f": "ctrl-_",
} | {chr(code): f"ctrl-{chr(code + 96)}" for code in range(1, 27) if code not in (8, 9, 13)}
_FINALS = {
    "A": "up",
    "B": "down",
    "C": "right",
    "D": "left",
    "E": "begin",
    "F": "end",
    "H": "home",
    "P": "f1",
    "Q": "f2",
    "S": "f4",
}
_KEYPAD = {"M": "enter", "j": "*", "k": "+", "l": ",", "m": "-", "n": ".", "o": "/", "X": "="}
_NUMBERS = {
    1: "home",
    2: "insert",
    3: "delete",
    4: "end",
    5: "pageup",
    6: "pagedown",
    7: "home",
    8: "end",
} | dict(
    zip(
        [11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 23, 24],
        [f"f{number}" for number in range(1, 13)],
        strict=True,
    )
)
_CODES = {9: "tab", 13: "enter", 27: "esc", 8: "backspace", 127: "backspace", 32: "space"}
_CODES |= {57414: "enter", 57417: "left", 57418: "right", 57419: "up", 57420: "down"}
_CODES |= {57421: "pageup", 57422: "pagedown", 57423: "home", 57424: "end", 57426: "delete"}
_PRIVATE_USE = range(0xE000, 0xF900)
_RELEASED = "3"
_NOT_WITH_ALT = ("text", "paste")


@dataclass(frozen=True, slots=True)
class Key:
    """One key, or a run of typed characters, or a paste."""

    name: str
    text: str = ""


class KeyDecoder:
    """One terminal's; ``feed`` it what was read."""

    def __init__(self) -> None:
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._paste: list[str] | None = None
        self._num_pasted = 0

    @property
    def is_waiting(self) -> bool:
        """Whether only time can tell what the last characters are."""
        return self._paste is None and self._text in _AMBIGUOUS

    def feed(self, data: bytes) -> list[Key]:
        """The keys that are complete with ``data``."""
        self._text += self._bytes.decode(data)
        keys: list[Key] = []
        while self._text:
            if self._paste is not None:
                found = self._pasted(keys)
            elif self._text[0] == "\x1b":
                found = self._escape(keys)
            else:
                found = self._ordinary(keys)
            if not found:
                break
        return keys

    def flush(self) -> list[Key]:
        """Nothing follows for now: an escape character that waits is a key of its own."""
        if not self.is_waiting:
            return []
        text, self._text = self._text, ""
        if text in ("\x1b", "\x1b\x1b"):
            return [Key("esc")] * len(text)
        keys = [Key("esc")] * (text.count("\x1b") - 1)
        return [*keys, Key(f"alt-{text[-1]}")]

    def _ordinary(self, keys: list[Key]) -> bool:
        match = _TEXT.match(self._text)
        if match is None:
            name = _CONTROLS.get(self._text[0])
            self._text = self._text[1:]
            if name is not None:
                keys.append(Key(name))
            return True
        self._text = self._text[match.end() :]
        typed = match.group()
        if keys and keys[-1].name == "text":
            typed = keys.pop().text + typed
        keys.append(Key("text", typed))
        return True

    def _pasted(self, keys: list[Key]) -> bool:
        assert self._paste is not None
        inside, end, rest = self._text.partition(_PASTE_END)
        if not end:
            kept = _num_begun(self._text, _PASTE_END)
            inside, rest = (
                self._text[: len(self._text) - kept],
                self._text[len(self._text) - kept :],
            )
        inside = inside[: MAX_PASTE_CHARS - self._num_pasted]
        self._num_pasted += len(inside)
        self._paste.append(inside)
        self._text = rest
        if not end:
            return False
        text = "".join(self._paste).replace("\r\n", "\n").replace("\r", "\n")
        self._paste, self._num_pasted = None, 0
        keys.append(Key("paste", text))
        return True

    def _escape(self, keys: list[Key]) -> bool:
        """Take one escape sequence, or nothing when more of it must come."""
        text = self._text
        if text in _AMBIGUOUS:
            return False
        if text.startswith("\x1b\x1b"):
            return self._twice(keys)
        sequence = _CSI.match(text)
        if text.startswith("\x1b[["):
            sequence = _CONSOLE_FUNCTION_KEY.match(text)
            name = f"f{ord(text[3]) - 64}" if sequence else ""
            length = sequence.end() if sequence else 3
        elif sequence is not None:
            name, length = self._control_sequence(sequence), sequence.end()
        elif _CSI_BEGUN.match(text) or _SS3_BEGUN.match(text):
            return False
        elif shifted := _SS3.match(text):
            name, length = _ss3(shifted.group(1), shifted.group(2)), shifted.end()
        elif text[1] == "[":
            name, length = "", len(re.match(r"\x1b\[[<=>?]?[0-9:;]*[ -/]*", text).group())  # type: ignore[union-attr]
        else:
            name, length = _with_alt(text[1]), 2
        self._text = text[length:]
        if name:
            keys.append(_key(name))
        return True

    def _twice(self, keys: list[Key]) -> bool:
        """Esc pressed twice; or a key with Alt, as some terminals send it."""
        rest = self._text[1:]
        if rest[1:2] not in ("[", "O"):
            keys.append(Key("esc"))
            self._text = rest
            return True
        if _CSI_BEGUN.match(rest) or _SS3_BEGUN.match(rest):
            return False
        self._text = rest
        inner: list[Key] = []
        self._escape(inner)
        keys += [key if key.name in _NOT_WITH_ALT else Key(_alt(key.name)) for key in inner]
        return True

    def _control_sequence(self, match: "re.Match[str]") -> str:
        """The name of a key, or an empty one for what is none: reports, focus, the mouse."""
        if match["private"]:
            return ""
        fields = [field.split(":") for field in match["parameters"].split(";")]
        number = int(fields[0][0][:6] or 1)
        modifiers = fields[1] if len(fields) > 1 else ["1"]
        if len(modifiers) > 1 and modifiers[1] == _RELEASED:
            return ""
        mask = max(0, int(modifiers[0][:4] or 1) - 1)
        final = match["final"]
        if final == "~" and number == 200:
            self._paste = []
            return ""
        if final == "Z":
            return "shift-tab"
        if final == "~" and number == 27 and len(fields) > 2:
            return _of_code(int(fields[2][0][:7] or 0), mask)
        if final == "u":
            return _of_code(number, mask)
        base = _NUMBERS.get(number, "") if final == "~" else _FINALS.get(final, "")
        return _modified(base, mask) if base else ""


def _key(name: str) -> Key:
    return Key("text", name.removeprefix("text:")) if name.startswith("text:") else Key(name)


def _modified(base: str, mask: int) -> str:
    """Bits as xterm counts them: 1 shift, 2 alt, 4 control."""
    names = [name for bit, name in ((4, "ctrl-"), (2, "alt-"), (1, "shift-")) if mask & bit]
    return "".join(names) + base


def _of_code(code: int, mask: int) -> str:
    """A key that is reported as its character (``CSI code ; modifiers u``)."""
    if code in _CODES:
        base = _CODES[code]
        if base == "space" and not mask & 6:
            return "text: "
        return _modified(base, mask)
    if code < 32 or code > 0x10FFFF or code in _PRIVATE_USE or 0xD800 <= code < 0xE000:
        return ""
    char = chr(code)
    if not mask & 6:
        return "text:" + (char.upper() if mask & 1 else char)
    if mask & 4 and not mask & 2 and char in "im[":
        return {"i": "tab", "m": "enter", "[": "esc"}[char]
    return _modified(char, mask & ~1 if char.lower() == char.upper() else mask)


def _ss3(parameters: str, final: str) -> str:
    mask = max(0, int(parameters.rpartition(";")[2][:4] or 1) - 1)
    if final == "R":
        return _modified("f3", mask)
    if final in _FINALS:
        return _modified(_FINALS[final], mask)
    if final in _KEYPAD:
        return "enter" if final == "M" else "text:" + _KEYPAD[final]
    return f"text:{chr(ord(final) - 64)}" if "p" <= final <= "y" else ""


def _with_alt(char: str) -> str:
    if char == "\n":
        return "alt-enter"
    if char in _CONTROLS:
        return _alt(_CONTROLS[char])
    return f"alt-{char}" if char.isprintable() else ""


def _alt(name: str) -> str:
    if name.startswith(("alt-", "ctrl-alt-")):
        return name
    if name.startswith("ctrl-"):
        return "ctrl-alt-" + name.removeprefix("ctrl-")
    return f"alt-{name}"


def _num_begun(text: str, marker: str) -> int:
    """Characters at the end of ``text`` that may be the beginning of ``marker``."""
    for length in range(min(len(marker) - 1, len(text)), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0
