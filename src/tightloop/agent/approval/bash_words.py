"""Words of a bash command line: quoting, escapes, expansions, substitutions.

The reader understands a part of bash, and that part exactly: whatever it is not sure of raises
``NotUnderstood``, so that nothing can hide in what it skipped. What a word becomes is known when
nothing in it is expanded; otherwise the word says what little is sure of it. Commands inside a word
(``$(...)``, back quotes, ``<(...)``) are read by ``bash_line``, and belong to the line.

Source of the rules: the GNU Bash manual, chapters 3.1 to 3.7; judged by bash itself in the tests.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

BLANKS = " \t"
META = " \t\n;&|()<>"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BRACED_NAME = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")
_SPECIAL = "?#$!-0123456789"
_SEVERAL = "@*"  # the positional parameters: any number of words, also between double quotes


class NotUnderstood(Exception):
    """The line is not one of the understood kind; the text says what in it."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word as written. ``text`` is what the program gets, None when that is not known.

    ``is_single``: exactly one word comes of it. ``can_be_option``: one of the words that come of it
    may begin with a dash. ``start`` is the literal text that what comes of it begins with. ``is_plain``: written
    without any quoting, so that it can be a reserved word.
    """

    raw: str
    text: str | None
    is_single: bool = True
    can_be_option: bool = False
    start: str = ""
    is_plain: bool = True


def known(text: str) -> Word:
    """A word that becomes just this."""
    return Word(text, text, can_be_option=text.startswith("-"), start=text, is_plain=False)


UNKNOWN = Word("...", None, is_single=False, can_be_option=True, is_plain=False)
"""Any number of words with any content, such as what ``xargs`` adds."""


@dataclass(slots=True)
class _Building:
    """A word while it is read."""

    pieces: list[str] = field(default_factory=list)
    is_known: bool = True
    is_single: bool = True
    is_plain: bool = True
    starts_unknown: bool = False
    starts_home: bool = False
    splits: bool = False
    has_brace: bool = False
    start: str | None = None

    def literal(self, text: str) -> None:
        """More that stays as it is."""
        self.pieces.append(text)

    def expansion(self, *, is_single: bool, splits: bool = False) -> None:
        """Something that is only known when the line runs; it ``splits`` at blanks in it."""
        self.splits = self.splits or splits
        if self.is_known:
            self.start = "".join(self.pieces)
            self.starts_unknown = not self.start
        self.is_known = False
        self.is_single = self.is_single and is_single

    def word(self, raw: str) -> Word:
        """The word read."""
        if self.has_brace and ("," in raw or ".." in raw):
            raise NotUnderstood("a brace expansion")
        if self.is_known:
            text = "".join(self.pieces)
            return Word(raw, text, True, text.startswith("-"), text, self.is_plain)
        start = self.start or ""
        can_be_option = (
            self.splits or start.startswith("-") or (self.starts_unknown and not self.starts_home)
        )
        return Word(raw, None, self.is_single, can_be_option, start, self.is_plain)


class WordReader:
    """Reads words at ``at`` in ``text``. ``read_commands(closing)`` reads a list of commands at the
    same place up to the closing parenthesis, ``read_apart(text)`` one that stands for itself.
    """

    def __init__(
        self,
        text: str,
        read_commands: Callable[[], None],
        read_apart: Callable[[str], None],
    ) -> None:
        self.text = text
        self.at = 0
        self._read_commands = read_commands
        self._read_apart = read_apart

    def peek(self, length: int = 1) -> str:
        """The next characters; fewer at the end."""
        return self.text[self.at : self.at + length]

    def word(self) -> Word:
        """The word that begins here. It must begin here."""
        begin = self.at
        building = _Building()
        while (char := self.peek()) and char not in META:
            self._step(building, char, is_first=self.at == begin)
        if self.at == begin:
            if self.peek(2) in ("<(", ">("):
                return self._process_substitution(begin)
            raise NotUnderstood(f"{self.peek(8)!r} where a word should be")
        if self.peek() == "(" or self.peek(2) in ("<(", ">("):
            raise NotUnderstood("a parenthesis behind a word")
        raw = self.text[begin : self.at]
        if raw.startswith("{") and self.peek() in ("<", ">"):
            raise NotUnderstood("a descriptor that bash chooses")
        if raw == "[":  # the command: a pattern would have to be closed
            return Word(raw, raw, start=raw)
        return building.word(raw)

    def _process_substitution(self, begin: int) -> Word:
        self.at += 2
        self._read_commands()
        if (following := self.peek()) and following not in META:
            raise NotUnderstood("a word goes on behind a process substitution")
        return Word(self.text[begin : self.at], None, start="/dev/fd/", is_plain=False)

    def _step(self, building: _Building, char: str, *, is_first: bool) -> None:
        if char == "'":
            building.literal(self._single_quoted())
            building.is_plain = False
        elif char == '"':
            self.at += 1
            self._double_quoted(building, '"')
            building.is_plain = False
        elif char == "\\":
            building.literal(self._escaped())
            building.is_plain = False
        elif char == "$":
            self._dollar(building, is_quoted=False)
        elif char == "`":
            self._back_quoted(building, is_quoted=False)
        else:
            self._bare(building, char, is_first=is_first)

    def _bare(self, building: _Building, char: str, *, is_first: bool) -> None:
        if char > "~" and not char.isalnum():
            raise NotUnderstood(f"the character U+{ord(char):04X} outside of quotes")
        self.at += 1
        if char in "*?[":
            building.expansion(is_single=False)
            return
        if char == "~" and (is_first or self.text[self.at - 2] in "=:"):
            building.expansion(is_single=True)
            building.starts_home = building.starts_home or is_first
            return
        if char in "{}":
            building.has_brace = True
        building.literal(char)

    def _single_quoted(self) -> str:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise NotUnderstood("a quotation mark that is not closed")
        content = self.text[self.at + 1 : end]
        self.at = end + 1
        return content

    def _escaped(self) -> str:
        char = self.text[self.at + 1 : self.at + 2]
        if char in ("", "\n"):
            raise NotUnderstood("a line that is continued within a word")
        self.at += 2
        return char

    def _double_quoted(self, building: _Building, closing: str) -> None:
        """Up to ``closing``; all of it is a here-document's body when that is empty."""
        while char := self.peek():
            if char == closing:
                self.at += 1
                return
            if char == "\\":
                following = self.text[self.at + 1 : self.at + 2]
                if following in ("", "\n"):
                    raise NotUnderstood("a line that is continued within quotes")
                is_escape = following in '$`\\"' if closing else following in "$`\\"
                building.literal(following if is_escape else char + following)
                self.at += 2
            elif char == "$":
                self._dollar(building, is_quoted=True)
            elif char == "`":
                self._back_quoted(building, is_quoted=True)
            else:
                building.literal(char)
                self.at += 1
        if closing:
            raise NotUnderstood("a quotation mark that is not closed")

    def body(self) -> Word:
        """All of the text as the body of a here-document whose end mark is not quoted."""
        building = _Building(is_plain=False)
        self._double_quoted(building, "")
        return building.word("")

    def _dollar(self, building: _Building, *, is_quoted: bool) -> None:
        rest = self.text[self.at + 1 : self.at + 3]
        char = rest[:1]
        if char == "(":
            if rest == "((":
                raise NotUnderstood("arithmetic")
            self.at += 2
            self._read_commands()
            building.expansion(is_single=is_quoted, splits=not is_quoted)
            return
        match = _BRACED_NAME.match(self.text, self.at + 1) or _NAME.match(self.text, self.at + 1)
        if match is not None:
            self.at = match.end()
            building.expansion(is_single=is_quoted, splits=not is_quoted)
        elif char and char in _SPECIAL:
            self.at += 2
            building.expansion(is_single=is_quoted, splits=not is_quoted)
        elif char and char in _SEVERAL:
            self.at += 2
            building.expansion(is_single=False, splits=True)
        elif char == "'" and not is_quoted:
            self._ansi_quoted(building)
        elif char and char in '{["' and not (char == '"' and is_quoted):
            raise NotUnderstood(f"the expansion ${char}")
        else:
            building.literal("$")
            self.at += 1

    def _ansi_quoted(self, building: _Building) -> None:
        self.at += 1
        content = self._single_quoted()
        if "\\" in content:
            raise NotUnderstood("escapes in $'...'")
        building.literal(content)
        building.is_plain = False

    def _back_quoted(self, building: _Building, *, is_quoted: bool) -> None:
        end = self.text.find("`", self.at + 1)
        content = self.text[self.at + 1 : end]
        if end < 0 or "\\" in content:
            raise NotUnderstood("back quotes that are not closed or have a backslash in them")
        self._read_apart(content)
        self.at = end + 1
        building.expansion(is_single=is_quoted, splits=not is_quoted)


def check_characters(text: str) -> None:
    """Raises ``NotUnderstood`` for characters that hide something or mean different things."""
    for char in text:
        if (char < " " and char not in "\t\n") or (
            char > "~" and unicodedata.category(char)[0] == "C"
        ):
            raise NotUnderstood(f"the invisible character U+{ord(char):04X}")
