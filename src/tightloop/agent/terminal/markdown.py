"""Markdown of a model as rows, while it comes.

A row is *complete* when nothing that may follow can change it: then it goes to the scrollback and
is never touched again. What is left, the last row of the line that is being written and those
before which a mark is still open, is live.

Blocks are lines: a heading, an item, a quotation, code, a paragraph. Paragraphs are not joined:
a line of the model is a line. Tables wait for their end, so that their columns can be aligned.
"""

import re

from tightloop.agent.terminal.blocks import LaidLine, expanded, laid_line
from tightloop.agent.terminal.styled import EMPTY, Line, Role, Span, line, one_line_safe
from tightloop.agent.terminal.table import MAX_TABLE_ROWS, is_table_row, table_lines
from tightloop.agent.terminal.wrapping import chop, cut

MAX_LINE_CHARS = 4000
"""A longer line goes on in a new row, so that one without an end is not read anew for ever."""
MAX_HELD_ROWS = 8
"""More rows than this do not wait for the counterpart of a mark."""
MAX_LIVE_TABLE_ROWS = 12
CODE_MARGIN = "  "

_FENCE = re.compile(r"( {0,12})(`{3,}|~{3,})([^`]*)$")
_FENCE_BEGUN = re.compile(r" {0,12}(?:`+|~+)$")


class MarkdownView:
    """One message. ``feed`` it as it comes; ``take`` gives each row once, ``live`` the others."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._ended: list[str] = []
        self._line = ""
        self._fence = ""
        self._fence_indent = 0
        self._table: list[str] = []
        self._done = 0
        self._literal_before = 0
        self._has_rows = False
        self._owes_blank = False
        self._is_finished = False

    def feed(self, delta: str) -> None:
        """More text."""
        head, newline, rest = delta.partition("\n")
        self._open.append(head)
        if newline:
            self._ended.append("".join(self._open))
            *whole, last = rest.split("\n")
            self._ended += whole
            self._open = [last]

    def finish(self) -> None:
        """Nothing follows: the next ``take`` gives the rest."""
        self._is_finished = True

    def take(self, width: int) -> list[Line]:
        """The rows that became complete, for a terminal of this width."""
        rows: list[Line] = []
        ended, self._ended = self._ended, []
        for text in ended:
            self._end_line(text.removesuffix("\r"), width, rows)
        self._line = "".join(self._open)
        if self._is_finished:
            self._end_rest(width, rows)
        elif len(self._line) > MAX_LINE_CHARS and not self._fence:
            self._end_line(self._line, width, rows)
            self._line = ""
        elif self._fence:
            self._take_code(width, rows)
        elif not self._may_be_special(self._line):
            self._take_text(width, rows)
        self._open = [self._line]
        return rows

    def live(self, width: int, max_rows: int = 1 << 30) -> list[Line]:
        """The rows that may still change: the last ``max_rows`` of them, as of the last ``take``."""
        rows = [cut(line(text), width) for text in self._table[-MAX_LIVE_TABLE_ROWS:]]
        if self._fence:
            if self._line and not _FENCE_BEGUN.match(self._line):
                rows += self._code_rows(self._code_text(self._line)[self._done :], width)
        elif not self._may_be_special(self._line):
            rows += [row.line for row in self._laid().rows(width, self._done)] if self._line else []
        elif is_table_row(self._line):
            rows.append(cut(line(self._line), width))
        if rows and self._owes_blank and self._has_rows and not self._done:
            rows.insert(0, EMPTY)
        return rows[max(0, len(rows) - max_rows) :]

    def _may_be_special(self, text: str) -> bool:
        """Whether an unfinished line is none, or may be a fence or a row of a table."""
        return not self._done and bool(
            _FENCE.match(text) or _FENCE_BEGUN.match(text) or is_table_row(text)
        )

    # -- lines that ended

    def _end_rest(self, width: int, rows: list[Line]) -> None:
        if self._line:
            self._end_line(self._line.removesuffix("\r"), width, rows)
            self._line = ""
        self._end_table(width, rows)

    def _end_line(self, text: str, width: int, rows: list[Line]) -> None:
        if not self._fence:
            text = expanded(text, is_final=True)
        fence = None if self._done else _FENCE.match(text)
        if self._fence:
            self._end_code(text, width, rows)
        elif not self._done and is_table_row(text) and len(self._table) < MAX_TABLE_ROWS:
            self._table.append(text)
        elif fence is not None:
            self._end_table(width, rows)
            self._fence_indent, self._fence = len(fence[1]), fence[2]
            self._owes_blank = True
        elif not text.strip() and not self._done:
            self._end_table(width, rows)
            self._owes_blank = True
        else:
            self._end_table(width, rows)
            laid = laid_line(text, is_final=True, literal_before=self._literal_before)
            self._add(rows, [row.line for row in laid.rows(width, self._done)])
        self._done = self._literal_before = 0

    def _end_code(self, text: str, width: int, rows: list[Line]) -> None:
        end = text.strip()
        if not self._done and end.startswith(self._fence) and not end.strip(self._fence[0]):
            self._fence, self._owes_blank = "", True
            return
        rest = self._code_text(text)[self._done :]
        if rest or not self._done:
            self._add(rows, self._code_rows(rest, width))

    def _end_table(self, width: int, rows: list[Line]) -> None:
        table, self._table = self._table, []
        if table:
            self._add(rows, table_lines(table, width))

    def _add(self, rows: list[Line], more: list[Line]) -> None:
        """Rows that follow; several empty lines are one, and none is the first or the last."""
        if more and self._owes_blank and self._has_rows and not self._done:
            rows.append(EMPTY)
        if more:
            self._owes_blank, self._has_rows = False, True
        rows += more

    # -- the line that is being written

    def _laid(self) -> LaidLine:
        return laid_line(self._line, is_final=False, literal_before=self._literal_before)

    def _take_text(self, width: int, rows: list[Line]) -> None:
        laid = self._laid()
        complete = laid.complete(width, self._done)
        if not complete and len(laid.rows(width, self._done)) > MAX_HELD_ROWS:
            self._literal_before = len(expanded(self._line, is_final=False))
            laid = self._laid()
            complete = laid.complete(width, self._done)
        if complete and self._table:
            self._end_table(width, rows)
        for row in complete:
            self._add(rows, [row.line])
            self._done = row.end

    def _take_code(self, width: int, rows: list[Line]) -> None:
        """A row of code is cut where the terminal ends, so whatever fills a row is complete."""
        rest = self._code_text(self._line)[self._done :]
        if len(rest) <= width // 2 or _FENCE_BEGUN.match(self._line):
            return
        complete = self._code_rows(rest, width)[:-1]
        self._add(rows, complete)
        self._done += sum([len(row.plain) - len(CODE_MARGIN) for row in complete])

    def _code_text(self, text: str) -> str:
        """A line of code as it is shown, without the indentation that the fence has, too."""
        text = one_line_safe(expanded(text, is_final=False))
        return text[min(self._fence_indent, len(text) - len(text.lstrip(" "))) :]

    def _code_rows(self, text: str, width: int) -> list[Line]:
        room = max(1, width - len(CODE_MARGIN))
        margin = Line((Span(CODE_MARGIN),))
        return [margin + row if row.spans else EMPTY for row in chop(line(text, Role.CODE), room)]
