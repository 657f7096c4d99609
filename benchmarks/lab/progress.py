"""How far a long measurement is, on standard error."""

import sys
from typing import TextIO

from tightloop.trace.clock import now_ns

LINE_EVERY_S = 10.0
"""Where standard error is no terminal: a line now and then instead of one that changes."""


class Progress:
    """``total`` steps of one task."""

    def __init__(self, title: str, total: int, stream: TextIO | None = None) -> None:
        self._title, self._total = title, total
        self._stream = stream or sys.stderr
        self._done = 0
        self._start_ns = self._told_ns = now_ns()
        self._first_ns = 0
        self._say(f"{title}: {total} steps")

    def step(self, what: str) -> None:
        """One more is done; ``what`` comes next."""
        self._done += 1
        time_ns = now_ns()
        self._first_ns = self._first_ns or time_ns
        is_terminal = self._stream.isatty()
        if time_ns - self._told_ns < (0.2 if is_terminal else LINE_EVERY_S) * 1e9:
            return
        self._told_ns = time_ns
        text = f"{self._title}: {self._done}/{self._total}{self._left(time_ns)}; {what}"
        if is_terminal:
            self._stream.write(f"\r{text[:99]:<99}")
            self._stream.flush()
        else:
            self._say(text)

    def _left(self, time_ns: int) -> str:
        """By the steps after the first, which contains warming up."""
        if self._done < 2:
            return ""
        each_s = (time_ns - self._first_ns) / 1e9 / (self._done - 1)
        return f", about {each_s * max(self._total - self._done, 0):.0f} s left"

    def end(self) -> None:
        """All done."""
        end = "\r" + " " * 99 + "\r" if self._stream.isatty() else ""
        self._say(f"{end}{self._title}: done in {(now_ns() - self._start_ns) / 1e9:.0f} s")

    def _say(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()
