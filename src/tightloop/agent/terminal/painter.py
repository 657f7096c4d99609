"""Which bytes bring a terminal from one state of the live region to the next. No I/O.

::

    scrollback  rows that were appended; the terminal's, never touched again
    live        rows at its end that are rewritten; the cursor rests in one of them

A frame is one walk over *new = appended + live rows*, compared with the live rows that are on the
screen: row ``i`` of the one against row ``i`` of the other. Rows that are the same are stepped
over, so a row that was live and becomes scrollback unchanged costs nothing. Movement is relative:
where on the screen the region is need not be known.

Autowrap is off while a frame is drawn. Should the terminal think that a row is wider than we do,
the row is cut at the edge, and the rows below it are still where they are expected.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tightloop.agent.terminal.capabilities import Capabilities
from tightloop.agent.terminal.styled import EMPTY, Line
from tightloop.agent.terminal.theme import rendered, theme
from tightloop.agent.terminal.wrapping import chop, cut

BEGIN = "\x1b[?2026h\x1b[?25l\x1b[?7l"
"""Synchronised output on (terminals without it ignore it), cursor hidden, autowrap off."""
AUTOWRAP = "\x1b[?7h"
END = "\x1b[?2026l"
SHOW_CURSOR = "\x1b[?25h"
ERASE_BELOW = "\x1b[J"
ERASE_REST = "\x1b[K"


@dataclass(frozen=True, slots=True)
class Size:
    """Of a terminal, in character cells; both are at least 1."""

    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the cursor rests in the live region, counted from 0."""

    row: int
    column: int


@dataclass(frozen=True, slots=True)
class _Row:
    """A row as it is on the screen, attributes and all."""

    text: str
    cells: int


class Painter:
    """The state of one terminal's end. The cursor is expected at the left edge at first."""

    def __init__(self, capabilities: Capabilities, size: Size) -> None:
        self._looks = theme(capabilities)
        self._reflows = capabilities.reflows
        self._size = size
        self._rows: list[_Row] = []
        self._cursor = Cursor(0, 0)
        self._has_cursor = True

    def frame(
        self, appended: Sequence[Line], live: Sequence[Line], cursor: Cursor | None, size: Size
    ) -> str:
        """What to write; empty when nothing changes.

        ``appended`` rows wider than the terminal are cut into several; of ``live`` rows the part
        that fits is shown. More live rows than the terminal has: those up to the last one, or to
        the cursor, are. Without a ``cursor`` there is none to be seen.
        """
        pieces = [self._fresh()] if size == self._size else [self._resized(size)]
        shown, cursor = _window(live, cursor, size)
        rows = [self._row(row) for line in appended for row in chop(line, size.columns)]
        num_appended = len(rows)
        rows += [self._row(cut(line, size.columns)) for line in shown]
        at = self._write(rows, pieces)
        target = cursor or Cursor(len(shown) - 1, 0)
        has_moved = num_appended or target != self._cursor or self._has_cursor is not bool(cursor)
        if not has_moved and not any(pieces):
            return ""
        pieces.append(_vertical(num_appended + target.row - at) + "\r")
        if target.column:
            pieces.append(f"\x1b[{target.column}C")
        self._rows = rows[num_appended:]
        self._cursor, self._has_cursor = target, bool(cursor)
        return BEGIN + "".join(pieces) + AUTOWRAP + (SHOW_CURSOR if cursor else "") + END

    def leave(self) -> str:
        """Erases the live region and shows the cursor, at the left edge below the scrollback."""
        up = _vertical(-self._cursor.row) + "\r"
        self.forget()
        return up + ERASE_BELOW + "\x1b[0m" + AUTOWRAP + SHOW_CURSOR + END

    def forget(self) -> None:
        """Somebody else wrote: the cursor is at the left edge of a fresh row, nothing is live."""
        self._rows = []
        self._cursor = Cursor(0, 0)
        self._has_cursor = True

    def _row(self, line: Line) -> _Row:
        return _Row(rendered(line, self._looks), line.cells)

    def _fresh(self) -> str:
        """Whatever may stand below the first row of all is not ours."""
        return "" if self._rows else "\r" + ERASE_BELOW

    def _resized(self, size: Size) -> str:
        """Erases the live region of a terminal that has changed its size meanwhile.

        One that reflows has wrapped the rows that became too wide. One that became lower has moved
        rows of a region higher than itself into the scrollback, where they stay.
        """
        above = self._cursor.row
        if self._reflows:
            above = sum(-(-row.cells // size.columns) or 1 for row in self._rows[:above])
            above += self._wrapped_before_cursor(size.columns)
        has_cursor = self._has_cursor
        self.forget()
        self._has_cursor = has_cursor
        self._size = size
        return _vertical(-above) + "\r" + ERASE_BELOW

    def _wrapped_before_cursor(self, columns: int) -> int:
        """Rows that its own row takes up before the cursor, rather too few than too many."""
        if not self._rows:
            return 0
        num_cells = self._rows[self._cursor.row].cells
        return max(0, min(self._cursor.column, num_cells - 1)) // columns

    def _write(self, rows: list[_Row], pieces: list[str]) -> int:
        """Add what changes the live rows into ``rows``; the row in which the cursor is then."""
        old = self._rows
        at = self._cursor.row
        for index, row in enumerate(rows):
            if index < len(old) and old[index] == row:
                continue
            pieces.append(_to_row(at, index, max(at, len(old) - 1)))
            pieces.append(row.text)
            if row.cells < self._size.columns and index < len(old):
                pieces.append(ERASE_REST)
            at = index
        if len(rows) < len(old):
            pieces.append(_to_row(at, len(rows), len(old) - 1) + ERASE_BELOW)
            at = len(rows)
        return at


def _window(
    live: Sequence[Line], cursor: Cursor | None, size: Size
) -> tuple[Sequence[Line], Cursor | None]:
    """The live rows that a terminal of this size shows, never none, and the cursor among them."""
    live = live or (EMPTY,)
    first = max(0, len(live) - size.rows)
    if cursor is None:
        return live[first:], None
    row = min(cursor.row, len(live) - 1)
    first = min(first, row)
    column = min(cursor.column, size.columns - 1)
    return live[first : first + size.rows], Cursor(row - first, column)


def _vertical(num_rows: int) -> str:
    if num_rows == 0:
        return ""
    return f"\x1b[{num_rows}B" if num_rows > 0 else f"\x1b[{-num_rows}A"


def _to_row(at: int, row: int, last: int) -> str:
    """To the left edge of ``row``; those below the ``last`` one are made, which may scroll."""
    reached = min(row, last)
    return _vertical(reached - at) + "\r" + "\n" * (row - reached)
