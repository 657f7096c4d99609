"""Tables of Markdown, aligned once all their rows are known."""

import re

from tightloop.agent.terminal.inline_markdown import inline
from tightloop.agent.terminal.styled import Line, Role, Span, line
from tightloop.agent.terminal.wrapping import wrap

MAX_TABLE_ROWS = 60
"""Longer ones are not held back: they are shown as they are written."""
_GAP = "   "
_RULE = "\u2500"
_SEPARATOR = re.compile(r"\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
_BAR = re.compile(r"(?<!\\)\|")


def is_table_row(text: str) -> bool:
    """Whether a line, finished or not, is taken for a row of a table."""
    return text.lstrip().startswith("|")


def table_lines(rows: list[str], width: int) -> list[Line]:
    """The rows with their columns aligned; as they are if they are no table, or too wide for that."""
    plain = [row for text in rows for row in wrap(line(text.strip()), width, 2)]
    if len(rows) < 2 or not _SEPARATOR.match(rows[1].strip()):
        return plain
    cells = [
        _cells(text, Role.STRONG if index == 0 else Role.PLAIN) for index, text in enumerate(rows)
    ]
    del cells[1]
    num_columns = max(len(row) for row in cells)
    broad = [max([row[i].cells for row in cells if i < len(row)]) for i in range(num_columns)]
    total = sum(broad) + len(_GAP) * (num_columns - 1)
    if total > width:
        return plain
    found = [_aligned(row, broad) for row in cells]
    return [found[0], line(_RULE * total, Role.DIM), *found[1:]]


def _cells(text: str, base: Role) -> list[Line]:
    inside = text.strip().removeprefix("|")
    if inside.endswith("|") and not inside.endswith("\\|"):
        inside = inside[:-1]
    pieces = [piece.strip().replace("\\|", "|") for piece in _BAR.split(inside)]
    return [Line(tuple(inline(piece, is_final=True, base=base).spans)) for piece in pieces]


def _aligned(row: list[Line], broad: list[int]) -> Line:
    found: list[Span] = []
    for index, cell in enumerate(row):
        found += cell.spans
        if index < len(row) - 1:
            found.append(Span(" " * (broad[index] - cell.cells) + _GAP))
    return Line(tuple(found))
