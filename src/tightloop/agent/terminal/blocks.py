"""How one line of Markdown begins, and the rows that it takes."""

import re
from dataclasses import dataclass

from tightloop.agent.terminal.inline_markdown import inline
from tightloop.agent.terminal.printable import printable, printable_so_far
from tightloop.agent.terminal.styled import EMPTY, Line, Role, line
from tightloop.agent.terminal.width import cells
from tightloop.agent.terminal.wrapping import break_points, part

_HEADING = re.compile(r" {0,3}#{1,6} +")
_ITEM = re.compile(r"( *)([-*+]|\d{1,4}[.)]) +(\[[ xX]\] +)?")
_QUOTE = re.compile(r" {0,3}(?:> ?)+")
_RULE = re.compile(r" {0,3}([-*_])(?: *\1){2,} *$")
_MAX_INDENT = 16
_RULE_CELLS = 24
_TAB_CELLS = 4
_MIN_TEXT_CELLS = 6
_RULE_CHAR = "\u2500"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a line; ``end`` is how much of the line's text has been shown with it."""

    line: Line
    end: int


@dataclass(frozen=True, slots=True)
class LaidLine:
    """A line with its marks understood: ``first`` stands before its first row, ``rest`` before the
    others, ``num_stable`` characters of ``text`` cannot change any more."""

    text: Line
    num_stable: int
    first: Line = EMPTY
    rest: Line = EMPTY

    def complete(self, width: int, done: int) -> list[Row]:
        """Those behind ``done`` that no continuation of the line can change.

        What follows a row decides where it ends, so that has to be stable, too.
        """
        return self._rows(self.text.plain[: self.num_stable], width, done)[:-1]

    def rows(self, width: int, done: int) -> list[Row]:
        """Those that follow the first ``done`` characters; none if nothing is left."""
        return self._rows(self.text.plain, width, done)

    def _rows(self, plain: str, width: int, done: int) -> list[Row]:
        start = done
        while 0 < start < len(plain) and plain[start] == " ":
            start += 1
        if done > 0 and start >= len(plain):
            return []
        first, rest = self.first, self.rest
        if first.cells + _MIN_TEXT_CELLS > width:  # no room for indentation
            first = line(first.plain.lstrip())
            rest = line(" " * first.cells)
        ranges = break_points(plain[start:], max(1, width - first.cells))
        return [
            Row(
                (first if not done and not index else rest) + part(self.text, start + a, start + b),
                start + b,
            )
            for index, (a, b) in enumerate(ranges)
        ]


def laid_line(text: str, *, is_final: bool, literal_before: int = 0) -> LaidLine:
    """One line; see ``inline`` for the arguments, which count characters of ``text``."""
    text = expanded(text, is_final=is_final)
    if is_final and _RULE.match(text):
        return LaidLine(line(_RULE_CHAR * _RULE_CELLS, Role.DIM), _RULE_CELLS)
    first, rest, start, base = _beginning(text)
    found = inline(
        text[start:],
        is_final=is_final,
        literal_before=max(0, literal_before - start),
        base=base,
    )
    return LaidLine(Line(tuple(found.spans)), found.num_stable, first, rest)


def expanded(text: str, *, is_final: bool) -> str:
    """Without escape sequences and tabs. What was there already stays when the text grows."""
    if text.isprintable():
        return text.rstrip() if is_final else text
    if is_final:
        return printable(text).expandtabs(_TAB_CELLS).rstrip()
    return printable_so_far(text).expandtabs(_TAB_CELLS)


def _beginning(text: str) -> tuple[Line, Line, int, Role]:
    if match := _HEADING.match(text):
        return EMPTY, EMPTY, match.end(), Role.HEADING
    if match := _ITEM.match(text):
        indent = " " * min(len(match[1]), _MAX_INDENT)
        mark = match[2] if match[2] not in "*+" else "-"
        first = f"{indent}{mark} {match[3] or ''}"
        return line(first), line(" " * cells(first)), match.end(), Role.PLAIN
    if match := _QUOTE.match(text):
        bars = line("> " * min(match.group().count(">"), 4), Role.DIM)
        return bars, bars, match.end(), Role.DIM
    num_spaces = len(text) - len(text.lstrip(" "))
    margin = line(" " * min(num_spaces, _MAX_INDENT))
    return margin, margin, num_spaces, Role.PLAIN
