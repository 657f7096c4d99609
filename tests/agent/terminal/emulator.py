"""A terminal for tests: pyte, with a scrollback and with a way of resizing like real terminals."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyte

from tightloop.agent.terminal.painter import Size

_POP_KEYS = b"\x1b[<u"
"""pyte does not know that ``<`` belongs to a control sequence, and shows the rest of it."""


class Emulator:
    """Feed it bytes; ``rows`` are all rows from the oldest on, ``screen_rows`` those on the screen.

    ``reflows`` is what most terminals do when they become narrower: rows are wrapped, not cut.
    Becoming lower, blank rows below the cursor go first, then the topmost go into the scrollback.
    """

    def __init__(self, columns: int = 80, rows: int = 24, *, reflows: bool = False) -> None:
        self._reflows = reflows
        self._screen: Any = pyte.HistoryScreen(columns, rows, history=1_000_000)
        self._stream = pyte.ByteStream(self._screen)
        self._held = b""

    @property
    def size(self) -> Size:
        """As the program sees it."""
        return Size(self._screen.columns, self._screen.lines)

    @property
    def is_cursor_shown(self) -> bool:
        """Whether it can be seen."""
        return not self._screen.cursor.hidden

    @property
    def wraps(self) -> bool:
        """Whether autowrap is on, as other programs expect it."""
        return pyte.modes.DECAWM in self._screen.mode

    @property
    def cursor(self) -> tuple[int, int]:
        """Row among ``rows`` and column."""
        return len(self._screen.history.top) + self._screen.cursor.y, self._screen.cursor.x

    def feed(self, data: bytes) -> None:
        """The program wrote this, in any pieces."""
        data = self._held + data
        cut = data.rfind(b"\x1b", max(0, len(data) - len(_POP_KEYS) + 1))
        kept = cut if cut >= 0 and _POP_KEYS.startswith(data[cut:]) else len(data)
        self._held = data[kept:]
        self._stream.feed(data[:kept].replace(_POP_KEYS, b""))

    def rows(self) -> list[str]:
        """Scrollback and screen down to the last row that is not blank, without spaces at the ends."""
        found = [self._text(row) for row in self._all_rows()]
        while found and not found[-1]:
            found.pop()
        return found

    def screen_rows(self) -> list[str]:
        """What is on the screen."""
        buffer = self._screen.buffer
        return [self._text(buffer[y]) for y in range(self._screen.lines)]

    def styles(self, row: int) -> list[tuple[str, str, bool, bool]]:
        """Runs of one look in a row of the screen: text, colour, bold, reverse."""
        runs: list[tuple[str, str, bool, bool]] = []
        for x in range(self._screen.columns):
            cell = self._screen.buffer[row][x]
            look = (cell.fg, cell.bold, cell.reverse)
            if runs and runs[-1][1:] == look:
                runs[-1] = (runs[-1][0] + cell.data, *look)
            else:
                runs.append((cell.data, *look))
        return [run for run in runs if run[0].strip()]

    def resize(self, columns: int, rows: int) -> None:
        """The user pulled at the window."""
        kept, at = self._all_rows(), self.cursor[0]
        num_history = len(self._screen.history.top)
        column = self._screen.cursor.x
        if self._reflows:
            inside = min(column, max(0, _length(kept[at]) - 1)) // columns
            wrapped = [_wrapped(row, columns) for row in kept]
            num_history = sum(len(pieces) for pieces in wrapped[:num_history])
            at = sum(len(pieces) for pieces in wrapped[:at]) + inside
            kept = [piece for pieces in wrapped for piece in pieces]
        used = max([at, *[index for index, row in enumerate(kept) if self._text(row)]])
        top = min(at, max(num_history, used + 1 - rows))
        screen: Any = pyte.HistoryScreen(columns, rows, history=1_000_000)
        screen.mode = self._screen.mode
        screen.history.top.extend(kept[:top])
        for y, row in enumerate(kept[top : top + rows]):
            for x, cell in row.items():
                if x < columns:
                    screen.buffer[y][x] = cell
        screen.cursor.y, screen.cursor.x = at - top, min(column, columns - 1)
        screen.cursor.hidden = self._screen.cursor.hidden
        self._screen = screen
        self._stream = pyte.ByteStream(screen)

    def _all_rows(self) -> list[Any]:
        buffer = self._screen.buffer
        return [*self._screen.history.top, *[buffer[y] for y in range(self._screen.lines)]]

    def _text(self, row: Any) -> str:
        cells = "".join([row[x].data if x in row else " " for x in range(max(row, default=-1) + 1)])
        return unicodedata.normalize("NFC", cells.rstrip())


def _length(row: Any) -> int:
    return max([x + 1 for x, cell in row.items() if cell.data.strip()], default=0)


def _wrapped(row: Any, columns: int) -> list[Any]:
    length = _length(row)
    pieces: list[dict[int, Any]] = [{} for _ in range(max(1, -(-length // columns)))]
    for x in range(length):
        if x in row:
            pieces[x // columns][x % columns] = row[x]
    return pieces


@dataclass(slots=True)
class KeptOutput:
    """An ``Output`` that keeps what is written, and takes nothing while it is stalled."""

    written: list[bytes] = field(default_factory=list)
    is_stalled: bool = False
    on_idle: Callable[[], None] | None = None

    @property
    def is_idle(self) -> bool:
        """See ``Output``."""
        return not self.is_stalled

    def write(self, data: bytes) -> None:
        """See ``Output``."""
        self.written.append(data)

    def drain(self) -> None:
        """See ``Output``."""
        self.is_stalled = False

    def go_on(self) -> None:
        """The reader has taken everything."""
        self.is_stalled = False
        if self.on_idle is not None:
            self.on_idle()

    def take(self) -> bytes:
        """What was written since the last time."""
        data = b"".join(self.written)
        self.written.clear()
        return data


class ManualTimers:
    """``call_later`` that waits for ``run``."""

    def __init__(self) -> None:
        self.waiting: list[ManualTimer] = []

    def __call__(self, seconds: float, callback: Callable[[], None]) -> "ManualTimer":
        """As ``loop.call_later``."""
        timer = ManualTimer(self, seconds, callback)
        self.waiting.append(timer)
        return timer

    def run(self) -> float:
        """Let the only timer come; the seconds that it waited for."""
        (timer,) = self.waiting
        timer.cancel()
        timer.callback()
        return timer.seconds


@dataclass(slots=True, eq=False)
class ManualTimer:
    """One of ``ManualTimers``."""

    timers: ManualTimers
    seconds: float
    callback: Callable[[], None]

    def cancel(self) -> None:
        """It does not come."""
        if self in self.timers.waiting:
            self.timers.waiting.remove(self)
