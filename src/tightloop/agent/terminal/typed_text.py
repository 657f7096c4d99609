"""The text that is being typed and the cursor in it. Knows nothing of keys and screens.

A long paste is one character of the text, taken from a private-use plane, until the text is sent:
it is moved over and deleted as a whole, and shown by its size.
"""

import re
from dataclasses import dataclass

from tightloop.agent.terminal.width import char_cells

FIRST_PASTE = 0xF0000
MAX_PASTES = 0x1000
MAX_UNDO = 200
SHORT_PASTE_LINES = 8
SHORT_PASTE_CHARS = 800
LONG_CHARS = 4000

_UNSAFE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff{chr(FIRST_PASTE)}-\U0010ffff]")
_WORD = re.compile(r"\w+|[^\w\s]+")
_SPACED_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class _State:
    text: str
    cursor: int


class TypedText:
    """Text, cursor (characters before it), what was cut last, and the way back."""

    def __init__(self) -> None:
        self.raw = ""
        """The text with a character for each long paste."""
        self.cursor = 0
        self._pastes: dict[str, str] = {}
        self._cut = ""
        self._undo: list[_State] = []
        self._is_typing = False

    @property
    def text(self) -> str:
        """What was meant."""
        return self._meant(self.raw)

    def pasted(self, char: str) -> str | None:
        """The paste that ``char`` stands for."""
        return self._pastes.get(char)

    def replace(self, text: str) -> None:
        """Another text, the cursor at its end. A very long one is like a paste."""
        self._remember()
        self.raw, self.cursor = "", 0
        if len(text) > LONG_CHARS:
            self._paste(text)
        else:
            self._put(_clean(text))

    def clear(self) -> None:
        """No text, and no way back to it."""
        self.raw, self.cursor, self._undo = "", 0, []
        self._pastes = {}
        self._is_typing = False

    def insert(self, text: str) -> None:
        """At the cursor. Characters typed one after the other are undone together."""
        if not (self._is_typing and text.isalnum()):
            self._remember()
        self._put(_clean(text))
        self._is_typing = text.isalnum()

    def paste(self, text: str) -> None:
        """At the cursor; a long one is shown by its size only."""
        self._remember()
        self._paste(text)

    def splice(self, start: int, text: str) -> None:
        """Replace what is between ``start`` and the cursor."""
        self._remember()
        self.raw = self.raw[:start] + self.raw[self.cursor :]
        self.cursor = start
        self._put(_clean(text))

    def delete_to(self, position: int, *, cuts: bool = False) -> None:
        """Delete between cursor and ``position``; ``cuts`` keeps it for ``put_back``."""
        if position == self.cursor:
            return
        self._remember()
        start, end = sorted((position, self.cursor))
        if cuts:
            self._cut = self._meant(self.raw[start:end])
        self.raw = self.raw[:start] + self.raw[end:]
        self.cursor = start

    def put_back(self) -> None:
        """What was cut last, at the cursor."""
        if self._cut:
            self.paste(self._cut)

    def undo(self) -> None:
        """As before the last change."""
        if self._undo:
            state = self._undo.pop()
            self.raw, self.cursor = state.text, state.cursor
        self._is_typing = False

    def move_to(self, position: int) -> None:
        """The cursor, within the text."""
        self.cursor = max(0, min(position, len(self.raw)))
        self._is_typing = False

    # -- places

    def left(self) -> int:
        """One character back, with all the marks on it."""
        at = self.cursor - 1
        while at > 0 and char_cells(self.raw[at]) == 0 and self.raw[at] != "\n":
            at -= 1
        return max(0, at)

    def right(self) -> int:
        """One character on, with all the marks on it."""
        at = self.cursor + 1
        while at < len(self.raw) and char_cells(self.raw[at]) == 0 and self.raw[at] != "\n":
            at += 1
        return min(at, len(self.raw))

    def word_left(self, *, is_spaced: bool = False) -> int:
        """Where the word before the cursor begins; ``is_spaced``: words end at white space only."""
        words = _SPACED_WORD if is_spaced else _WORD
        starts = [match.start() for match in words.finditer(self.raw, 0, self.cursor)]
        return starts[-1] if starts else 0

    def word_right(self) -> int:
        """Where the word after the cursor ends."""
        match = _WORD.search(self.raw, self.cursor)
        return match.end() if match else len(self.raw)

    def line_start(self) -> int:
        """Of the line the cursor is in."""
        return self.raw.rfind("\n", 0, self.cursor) + 1

    def line_end(self) -> int:
        """Of the line the cursor is in."""
        end = self.raw.find("\n", self.cursor)
        return len(self.raw) if end < 0 else end

    def _paste(self, text: str) -> None:
        text = _clean(text)
        is_short = text.count("\n") < SHORT_PASTE_LINES and len(text) <= SHORT_PASTE_CHARS
        if is_short or len(self._pastes) == MAX_PASTES:
            self._put(text)
            return
        char = chr(FIRST_PASTE + len(self._pastes))
        self._pastes[char] = text
        self._put(char)

    def _put(self, text: str) -> None:
        self.raw = self.raw[: self.cursor] + text + self.raw[self.cursor :]
        self.cursor += len(text)
        self._is_typing = False

    def _meant(self, raw: str) -> str:
        if not self._pastes:
            return raw
        return "".join([self._pastes.get(char, char) for char in raw])

    def _remember(self) -> None:
        self._undo.append(_State(self.raw, self.cursor))
        del self._undo[:-MAX_UNDO]
        self._is_typing = False


def _clean(text: str) -> str:
    """Without control characters; those that stand for pastes are ours."""
    if text.isascii() and text.isprintable():
        return text
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _UNSAFE.sub("\ufffd", text)
