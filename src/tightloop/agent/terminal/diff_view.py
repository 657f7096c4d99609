"""A unified diff in colours."""

from tightloop.agent.terminal.printable import printable
from tightloop.agent.terminal.styled import Line, Role, line

_HEADERS = (
    "diff ",
    "--- ",
    "+++ ",
    "index ",
    "new file",
    "deleted file",
    "old mode",
    "new mode",
    "rename ",
    "similarity ",
    "Binary ",
)


def diff_lines(text: str) -> list[Line]:
    """A row for each line of a diff. Inside a hunk only the first character counts."""
    if not text:
        return []
    rows: list[Line] = []
    left = (0, 0)
    for raw in printable(text).removesuffix("\n").split("\n"):
        if left == (0, 0) or raw.startswith("@@"):
            left = _hunk_lengths(raw)
            rows.append(line(raw, _outside(raw)))
            continue
        mark = raw[:1]
        if mark == "+":
            left = (left[0], max(0, left[1] - 1))
            rows.append(line(raw, Role.ADDED))
        elif mark == "-":
            left = (max(0, left[0] - 1), left[1])
            rows.append(line(raw, Role.REMOVED))
        elif mark == "\\":
            rows.append(line(raw, Role.DIM))
        else:
            left = (max(0, left[0] - 1), max(0, left[1] - 1))
            rows.append(line(raw))
    return rows


def _outside(raw: str) -> Role:
    if raw.startswith("diff "):
        return Role.STRONG
    if raw.startswith("@@"):
        return Role.ACCENT
    return Role.DIM if raw.startswith(_HEADERS) else Role.PLAIN


def _hunk_lengths(raw: str) -> tuple[int, int]:
    """Lines of the old and of the new text that follow ``@@ -a,b +c,d @@``."""
    fields = raw.split(" ")
    if len(fields) < 4 or fields[0] != "@@":
        return 0, 0
    return _length(fields[1]), _length(fields[2])


def _length(field: str) -> int:
    _, comma, length = field[1:].partition(",")
    if not comma:
        return 1
    return int(length) if length.isdecimal() and len(length) < 10 else 0
