"""The terminal's end of the program: a scrollback that only grows, and a live region below it.

Whoever shows something appends finished rows and replaces the live ones as often as it likes;
thirty times a second at most, what has become of them is drawn. Nothing that was appended is kept.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from tightloop.agent.terminal.capabilities import Capabilities
from tightloop.agent.terminal.output import Output
from tightloop.agent.terminal.painter import Cursor, Painter, Size
from tightloop.agent.terminal.styled import Line
from tightloop.agent.terminal.wrapping import chop
from tightloop.trace.clock import Clock, MonotonicClock

FRAME_S = 1 / 30
MAX_FRAME_CHARS = 16_384
"""Appended text per frame; more of it is written in further frames, keys are read in between."""


class Timer(Protocol):
    """What has been put off; ``asyncio.TimerHandle`` is one."""

    def cancel(self) -> None:
        """Then it does not happen."""


CallLater = Callable[[float, Callable[[], None]], Timer]
"""``loop.call_later``: seconds, then what."""


class Screen:
    """One terminal. All on the event loop.

    Where rows cannot be redrawn (a pipe, a dumb terminal) appended lines are plain text, and the
    live region does not exist.
    """

    def __init__(
        self,
        output: Output,
        size: Callable[[], Size],
        capabilities: Capabilities,
        *,
        clock: Clock | None = None,
        call_later: CallLater | None = None,
    ) -> None:
        """Without ``call_later`` only ``draw`` draws, until ``attach`` gives one."""
        self.on_frame: Callable[[Size], None] | None = None
        """Called before each frame to bring ``append`` and ``set_live`` up to date."""
        self.num_frames = 0
        self._output = output
        self._size = size
        self._clock = clock or MonotonicClock()
        self._call_later = call_later
        self._painter = Painter(capabilities, size()) if capabilities.can_redraw else None
        self._pending: deque[Line] = deque()
        self._live: Sequence[Line] = ()
        self._cursor: Cursor | None = None
        self._timer: Timer | None = None
        self._next_ns = 0
        self._is_drawing = False
        self._is_closed = False
        output.on_idle = self._idle

    @property
    def size(self) -> Size:
        """As it is now."""
        return self._size()

    @property
    def is_plain(self) -> bool:
        """Whether there is no live region."""
        return self._painter is None

    def append(self, lines: Sequence[Line]) -> None:
        """These rows follow what was appended before, for good."""
        if lines:
            self._pending.extend(lines)
            self.touch()

    def set_live(self, lines: Sequence[Line], cursor: Cursor | None = None) -> None:
        """These rows are the live region from the next frame on, with or without a cursor."""
        self._live, self._cursor = lines, cursor
        self.touch()

    def attach(self, call_later: CallLater | None) -> None:
        """From now on frames are drawn by themselves; None: no more."""
        self._stop_timer()
        self._call_later = call_later
        self.touch()

    def touch(self) -> None:
        """A frame will be drawn, as soon as the frame rate allows."""
        if self._timer is None and not self._is_drawing and not self._is_closed:
            wait_ns = max(0, self._next_ns - self._clock.now_ns())
            self._put_off(wait_ns / 1e9)

    def draw(self) -> None:
        """Draw now, unless the terminal has not taken the last frame yet: then, when it has."""
        self._stop_timer()
        if self._is_closed or not self._output.is_idle:
            return
        self._is_drawing = True
        try:
            size = self.size
            if self.on_frame is not None:
                self.on_frame(size)
            self._paint(size)
        finally:
            self._is_drawing = False
            self._next_ns = self._clock.now_ns() + round(FRAME_S * 1e9)
        if self._pending and self._output.is_idle:
            self._put_off(0)

    def leave(self) -> None:
        """All that was appended is written and the live region erased: somebody else may write."""
        self._stop_timer()
        while self._pending:
            self._output.drain()
            self._paint(self.size)
        if self._painter is not None:
            self._output.write(self._painter.leave().encode())
        self._output.drain()

    def come_back(self) -> None:
        """Draws the live region again below what others wrote meanwhile."""
        if self._painter is not None:
            self._painter.forget()
            self._output.write(b"\r")
        self.touch()

    def close(self, *, keep_live: bool = False) -> None:
        """The last frame has been drawn; with ``keep_live`` the live rows become scrollback."""
        if self._is_closed:
            return
        if self.on_frame is not None:
            self._is_drawing = True
            self.on_frame(self.size)
        if keep_live and self._painter is not None:
            self._pending.extend(self._live)
        self.leave()
        self._is_closed = True

    def _put_off(self, seconds: float) -> None:
        if self._call_later is not None:
            self._timer = self._call_later(seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        self.draw()

    def _idle(self) -> None:
        self.touch()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _paint(self, size: Size) -> None:
        if self._painter is None:
            rows = [line.plain + "\n" for line in self._pending]
            self._pending.clear()
            text = "".join(rows)
        else:
            text = self._painter.frame(self._some(size.columns), self._live, self._cursor, size)
        if text:
            self.num_frames += 1
            self._output.write(text.encode())

    def _some(self, columns: int) -> list[Line]:
        """Appended rows for one frame, taken off those that wait."""
        rows: list[Line] = []
        num_chars = 0
        while self._pending and num_chars < MAX_FRAME_CHARS:
            chopped = chop(self._pending.popleft(), columns)
            for index, row in enumerate(chopped):
                rows.append(row)
                num_chars += columns // 4 + len(row.plain)
                if num_chars >= MAX_FRAME_CHARS:
                    self._pending.extendleft(reversed(chopped[index + 1 :]))
                    break
        return rows
