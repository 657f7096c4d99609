"""Plain-text tables that fit a terminal: what is too wide goes on in another block below."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 100
GAP = "  "
NOTHING = "-"
"""A cell without a value."""


@dataclass(frozen=True, slots=True)
class Column:
    """A heading and its cells; numbers stand to the right."""

    title: str
    cells: Sequence[str]
    is_number: bool = False

    @property
    def width(self) -> int:
        """Of the widest of all."""
        return max(len(text) for text in (self.title, *self.cells))

    def padded(self) -> list[str]:
        """Heading and cells, all of one width."""
        width, texts = self.width, [self.title, *self.cells]
        return [text.rjust(width) if self.is_number else text.ljust(width) for text in texts]


def layout(heads: Sequence[Column], figures: Sequence[Column], width: int = WIDTH) -> list[str]:
    """The lines of the table; ``heads`` are repeated beside each block of ``figures``."""
    if not figures:
        return _block(heads)
    taken = sum(column.width + len(GAP) for column in heads)
    lines: list[str] = []
    block: list[Column] = []
    used = taken
    for column in figures:
        needed = column.width + len(GAP)
        if block and used + needed - len(GAP) > width:
            lines += [*_block(heads, block), ""]
            block, used = [], taken
        block.append(column)
        used += needed
    return lines + _block(heads, block)


def _block(heads: Sequence[Column], figures: Sequence[Column] = ()) -> list[str]:
    """Rows that have nothing in any of the figures are left out."""
    num_rows = len(heads[0].cells)
    kept = [
        row
        for row in range(num_rows)
        if not figures or any(column.cells[row] != NOTHING for column in figures)
    ]
    columns = [
        Column(column.title, [column.cells[row] for row in kept], column.is_number)
        for column in (*heads, *figures)
    ]
    rows = zip(*(column.padded() for column in columns), strict=True)
    return [GAP.join(row).rstrip() for row in rows]
