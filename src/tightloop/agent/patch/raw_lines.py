"""Lines found in the bytes of a file, without taking the file apart.

A patch touches a few lines of a file that may have a hundred thousand. Splitting those costs many times what
one search and one count of line ends in the undivided content do, and joining them again as much.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

_END = b"\n"


def as_bytes(lines: Sequence[str]) -> bytes | None:
    """The lines, each with its end, as a file would hold them; None when none can hold them."""
    try:
        return "".join([line + "\n" for line in lines]).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a surrogate pair
        return None


class RawLines:
    """Numbers of lines (0-based) and offsets of bytes; ``begin`` is where line 0 begins.

    A line that is searched for matches to the byte, its end included. The last line of a file needs none.
    """

    def __init__(self, content: bytes, begin: int) -> None:
        self._content = content
        self._begin = begin
        # Lines whose offset is known, in order: whatever was asked for, so that the next is near.
        self._lines, self._offsets = [0], [begin]

    def offset(self, line: int) -> int:
        """Where ``line`` begins; the end of the content for a line that it does not have."""
        near = bisect_right(self._lines, line) - 1
        at = self._offsets[near]
        for _ in range(line - self._lines[near]):
            end = self._content.find(_END, at)
            if end < 0:
                return len(self._content)
            at = end + 1
        self._keep(line, at)
        return at

    def line_at(self, offset: int) -> int:
        """Which line begins at ``offset``."""
        near = bisect_right(self._offsets, offset) - 1
        line = self._lines[near] + self._content.count(_END, self._offsets[near], offset)
        self._keep(line, offset)
        return line

    def _keep(self, line: int, offset: int) -> None:
        place = bisect_left(self._lines, line)
        if place == len(self._lines) or self._lines[place] != line:
            self._lines.insert(place, line)
            self._offsets.insert(place, offset)

    def between(self, start: int, end: int) -> memoryview:
        """The bytes of the lines from ``start`` up to ``end``, their ends included; not copied."""
        at = self.offset(start)
        return memoryview(self._content)[at : self.offset(end) if start < end else at]

    def first(self, wanted: bytes, offset: int) -> int:
        """Where those lines (see ``as_bytes``) first stand at or after ``offset``, a line's; else -1."""
        content = self._content
        if offset >= len(content):
            return -1
        if content.startswith(wanted, offset):
            return offset
        found = content.find(_END + wanted, offset)
        if found >= 0:
            return found + 1
        return self._at_the_end(wanted[:-1], offset)

    def _at_the_end(self, wanted: bytes, offset: int) -> int:
        """The last lines of a content without a last line end."""
        start = len(self._content) - len(wanted)
        if start < offset or self._content.endswith(_END) or not self._content.endswith(wanted):
            return -1
        is_line = start == self._begin or self._content.startswith(_END, start - 1)
        return start if is_line else -1

    def stands_at(self, wanted: bytes, offset: int) -> bool:
        """Whether those lines stand right at ``offset``, a line's."""
        if offset >= len(self._content):
            return False
        is_there = self._content.startswith(wanted, offset)
        return is_there or self._at_the_end(wanted[:-1], offset) == offset

    def places(self, wanted: bytes, start: int) -> Iterator[int]:
        """The lines from ``start`` on at which those lines stand, in order."""
        at = self.first(wanted, self.offset(start))
        while at >= 0:
            yield self.line_at(at)
            end = self._content.find(_END, at)
            at = self.first(wanted, end + 1) if end >= 0 else -1


class Trail:
    """Lines that come one after the other, and whether they stand anywhere from line ``start`` on."""

    def __init__(self, raw: RawLines, start: int) -> None:
        self._raw = raw
        self._at = raw.offset(start)
        self._wanted = b""

    def goes_on(self, lines: Sequence[str]) -> bool:
        """Whether all lines so far and these stand in a row somewhere; after False it is over."""
        more = as_bytes(lines)
        if more is None:
            return False
        # What stood at a place before only has to go on there.
        is_next = bool(self._wanted) and self._raw.stands_at(more, self._at + len(self._wanted))
        self._wanted += more
        if not is_next:
            self._at = self._raw.first(self._wanted, self._at)
        return self._at >= 0
