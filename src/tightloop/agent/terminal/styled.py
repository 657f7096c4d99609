"""Text with roles instead of colours: what views make and the screen draws.

Nothing that reaches a terminal is made any other way, and a ``Span`` cleans its text when it is
made. So no view can forget to: an escape sequence of a command cannot get through.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from tightloop.agent.terminal.printable import printable
from tightloop.agent.terminal.width import cells

TAB_CELLS = 8
_LINE_BREAKS = re.compile("[\n\u2028\u2029]")
# Without these every terminal agrees about widths: joiners and variation selectors make one wide
# character out of several in some and not in others, marks of direction are not visible at all.
_WITHOUT_WIDTH = re.compile(
    "[\u00ad\u061c\u200b-\u200f\u2060-\u2064\u206a-\u206f\ufe00-\ufe0f\ufeff]"
)
_HIDDEN = re.compile("[\ufff9-\ufffb\U000e0000-\U000e01ef]")


class Role(StrEnum):
    """What a piece of text is; ``theme`` says how each looks."""

    PLAIN = "plain"
    DIM = "dim"
    STRONG = "strong"
    EMPHASIS = "emphasis"
    HEADING = "heading"
    CODE = "code"
    ADDED = "added"
    REMOVED = "removed"
    ERROR = "error"
    WARNING = "warning"
    GOOD = "good"
    ACCENT = "accent"
    SELECTED = "selected"


def one_line_safe(text: str) -> str:
    """``text`` as one row of visible characters.

    Escape sequences and characters without width are gone, tabs are spaces, line breaks are one
    space, and what could hide or reorder text is U+FFFD.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _HIDDEN.sub("\ufffd", _WITHOUT_WIDTH.sub("", printable(text)))
    return _LINE_BREAKS.sub(" ", text.expandtabs(TAB_CELLS))


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of one row; its text is made safe by ``one_line_safe``."""

    text: str
    role: Role = Role.PLAIN

    def __post_init__(self) -> None:
        if not (self.text.isascii() and self.text.isprintable()):
            object.__setattr__(self, "text", one_line_safe(self.text))


@dataclass(frozen=True, slots=True)
class Line:
    """One row of text, of any length."""

    spans: tuple[Span, ...] = ()

    @property
    def plain(self) -> str:
        """The text without roles."""
        return "".join([span.text for span in self.spans])

    @property
    def cells(self) -> int:
        """Columns that it takes up on a terminal."""
        return sum(cells(span.text) for span in self.spans)

    def __add__(self, other: "Line") -> "Line":
        """Both in one row."""
        return Line(self.spans + other.spans)


EMPTY = Line()


def line(text: str, role: Role = Role.PLAIN) -> Line:
    """One row of one role; line breaks in ``text`` become spaces."""
    return Line((Span(text, role),)) if text else EMPTY


def spans(*pieces: tuple[str, Role] | str) -> Line:
    """One row of several pieces; a bare string is ``Role.PLAIN``."""
    made = [Span(piece) if isinstance(piece, str) else Span(*piece) for piece in pieces]
    return Line(tuple([span for span in made if span.text]))


def lines_of(text: str, role: Role = Role.PLAIN) -> list[Line]:
    """A row for each line of ``text``; a newline at its end begins no further one."""
    return (
        [line(row, role) for row in printable(text).removesuffix("\n").split("\n")] if text else []
    )


def joined(pieces: Iterable[Line], between: Span) -> Line:
    """All that are not empty in one row, with ``between`` between them."""
    found: list[Span] = []
    for piece in pieces:
        if piece.spans:
            found += [between, *piece.spans] if found else piece.spans
    return Line(tuple(found))
