"""Rows cut and wrapped to a width in columns, roles kept."""

from tightloop.agent.terminal.styled import EMPTY, Line, Role, Span, line
from tightloop.agent.terminal.width import cells, fitting

ELLIPSIS = "\u2026"


def part(whole: Line, start: int, end: int) -> Line:
    """The characters ``start`` to ``end`` of a row."""
    found: list[Span] = []
    at = 0
    for span in whole.spans:
        length = len(span.text)
        if at + length > start and at < end:
            inside = span.text[max(0, start - at) : end - at]
            found.append(span if len(inside) == length else Span(inside, span.role))
        at += length
        if at >= end:
            break
    return Line(tuple(found))


def cut(whole: Line, width: int, *, ellipsis: bool = True) -> Line:
    """At most ``width`` columns of a row; an ellipsis says that something is missing."""
    if whole.cells <= width:
        return whole
    text = whole.plain
    if not ellipsis or width < 2:
        return part(whole, 0, fitting(text, width))
    kept = part(whole, 0, fitting(text, width - 1))
    role = kept.spans[-1].role if kept.spans else Role.DIM
    return kept + Line((Span(ELLIPSIS, role),))


def break_points(text: str, width: int, indent: int = 0) -> list[tuple[int, int]]:
    """Start and end of each row of ``text`` wrapped at spaces; rows after the first have less room.

    The spaces at a break belong to no row. A word wider than a row is cut. Once a row has a
    successor it never changes when text is added at the end.
    """
    rows: list[tuple[int, int]] = []
    start, room = 0, max(1, width)
    rest_room = max(1, width - indent)
    while True:
        end = fitting(text, room, start)
        if end >= len(text):
            rows.append((start, len(text)))
            return rows
        if end == start:
            end += 1  # a wide character in a row of one column: it has to go somewhere
        split = _break_before(text, start, end)
        rows.append((start, split))
        start = split
        while start < len(text) and text[start] == " ":
            start += 1
        if start == len(text):
            return rows
        room = rest_room


def _break_before(text: str, start: int, end: int) -> int:
    if end >= len(text) or text[end] == " ":
        return end
    space = text.rfind(" ", start, end)
    while space > start and text[space - 1] == " ":
        space -= 1
    return space if space > start and text[start:space].strip(" ") else end


def wrap(whole: Line, width: int, indent: int = 0) -> list[Line]:
    """Rows of at most ``width`` columns, broken at spaces; those after the first are indented."""
    text = whole.plain
    if len(text) <= width and (text.isascii() or cells(text) <= width):
        return [whole]
    indent = indent if indent < width // 2 else 0
    margin = Line((Span(" " * indent),)) if indent else EMPTY
    rows = [part(whole, start, end) for start, end in break_points(text, width, indent)]
    return [rows[0], *[margin + row for row in rows[1:]]]


def chop(whole: Line, width: int) -> list[Line]:
    """Rows of at most ``width`` columns, cut anywhere, as a terminal does it: nothing is dropped."""
    text = whole.plain
    if len(text) <= width and (text.isascii() or cells(text) <= width):
        return [whole]
    rows, start = [], 0
    while start < len(text):
        end = max(fitting(text, max(1, width), start), start + 1)
        rows.append(part(whole, start, end))
        start = end
    return rows


def beside(left: Line, right: Line, width: int) -> Line:
    """``left`` at the left edge, ``right`` at the right one; ``left`` gives way where both don't fit."""
    room = width - right.cells
    if room <= 0:
        return cut(right, width)
    left = cut(left, room - 1) if right.spans else cut(left, room)
    return left + line(" " * (room - left.cells)) + right
