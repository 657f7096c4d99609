"""A command while it runs and after it has: its line, the end of its output, how it ended."""

from collections import deque

from tightloop.agent.terminal.printable import printable, printable_so_far
from tightloop.agent.terminal.styled import Line, Role, line, spans
from tightloop.agent.terminal.wrapping import cut
from tightloop.trace.clock import Clock, MonotonicClock

MARGIN = "  "
NUM_COMMAND_ROWS = 3
NUM_FIRST_ROWS = 4
NUM_LAST_ROWS = 8
NUM_LIVE_ROWS = 6
MAX_ROW_CHARS = 2000
"""Of a longer row of output the beginning is kept."""


class CommandView:
    """One command. The rows it keeps are the first and the last few of the output.

    While it runs ``live`` shows how it goes; after ``finish``, ``take`` gives all of it once.
    """

    def __init__(self, command: str, clock: Clock | None = None) -> None:
        self._command = command
        self._clock = clock or MonotonicClock()
        self._started_ns = self._clock.now_ns()
        self._open = ""
        self._first: list[str] = []
        self._last: deque[str] = deque(maxlen=NUM_LAST_ROWS)
        self._num_rows = 0
        self._ending: Line | None = None
        self._is_taken = False

    def feed(self, output: str) -> None:
        """More output. A carriage return begins the row again, as progress bars do."""
        *whole, last = (self._open + output).split("\n")
        for raw in whole:
            self._end_row(raw)
        if len(last) > MAX_ROW_CHARS:
            last = _redrawn(last)[:MAX_ROW_CHARS]
        self._open = last

    def live(self, width: int, max_rows: int = 1 << 30) -> list[Line]:
        """The command and the last rows of its output so far; the command alone if it must be."""
        if self._ending is not None:
            return []
        rows = self._command_rows(width)
        seconds = (self._clock.now_ns() - self._started_ns) / 1e9
        tail = list(self._last)[-NUM_LIVE_ROWS:] if self._num_rows else []
        if self._open.strip():
            tail = [*tail, printable_so_far(_redrawn(self._open)).rstrip()][-NUM_LIVE_ROWS:]
        if seconds >= 1:
            tail.append(f"{seconds:.0f} s")
        room = max(0, max_rows - len(rows))
        tail = tail[len(tail) - min(room, len(tail)) :]
        return [*rows, *[_output(text, width) for text in tail]][:max_rows]

    def finish(
        self,
        exit_code: int | None,
        *,
        how: str = "",
        status: str = "completed",
        seconds: float | None = None,
    ) -> None:
        """It ended: the next ``take`` gives everything.

        ``how`` is the path that ran it; ``status`` is that of ``CommandExecution``. ``seconds`` is
        how long it took, by default since this was made.
        """
        if self._open.strip():
            self._end_row(self._open)
        self._open = ""
        if seconds is None:
            seconds = (self._clock.now_ns() - self._started_ns) / 1e9
        self._ending = _ending(exit_code, status, seconds, how)

    def take(self, width: int) -> list[Line]:
        """Once it has ended: the command, the first and last rows of its output, its end."""
        if self._ending is None or self._is_taken:
            return []
        self._is_taken = True
        return [
            *self._command_rows(width),
            *[_output(text, width) for text in self._first],
            *self._last_rows(width),
            cut(self._ending, width),
        ]

    def _last_rows(self, width: int) -> list[Line]:
        num_left = self._num_rows - len(self._first)
        last = list(self._last)[max(0, len(self._last) - num_left) :]
        num_out = num_left - len(last)
        gap = [line(f"{MARGIN}\u2026 {num_out} more row{'s' if num_out > 1 else ''}", Role.DIM)]
        return [*(gap if num_out else []), *[_output(text, width) for text in last]]

    def _end_row(self, raw: str) -> None:
        text = printable(_redrawn(raw))[:MAX_ROW_CHARS].rstrip()
        if not text and not self._num_rows:
            return  # empty rows at the beginning say nothing
        self._num_rows += 1
        if len(self._first) < NUM_FIRST_ROWS:
            self._first.append(text)
        self._last.append(text)

    def _command_rows(self, width: int) -> list[Line]:
        rows = printable(self._command).strip().split("\n")
        shown = [cut(spans(("$ ", Role.ACCENT), (rows[0], Role.STRONG)), width)]
        shown += [cut(line(MARGIN + row, Role.STRONG), width) for row in rows[1:NUM_COMMAND_ROWS]]
        left_out = len(rows) - NUM_COMMAND_ROWS
        if left_out > 0:
            more = f"{MARGIN}\u2026 {left_out} more row{'s' if left_out > 1 else ''}"
            shown.append(line(more, Role.DIM))
        return shown


def _redrawn(raw: str) -> str:
    """What is seen of a row: the text after its last carriage return."""
    return raw.removesuffix("\r").rpartition("\r")[2]


def _output(text: str, width: int) -> Line:
    return cut(line(MARGIN + text, Role.DIM), width)


def _ending(exit_code: int | None, status: str, seconds: float, how: str) -> Line:
    if status == "declined":
        return line(f"{MARGIN}not run: it was declined", Role.WARNING)
    code = "no exit code" if exit_code is None else f"exit {exit_code}"
    role = Role.GOOD if exit_code == 0 else Role.ERROR
    details = f", {_duration(seconds)}" + (f", {how}" if how else "")
    return spans(MARGIN, (code, role), (details, Role.DIM))


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
