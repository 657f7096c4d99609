"""The terminal's line discipline: raw while the program has it, as it was before on every way out."""

import contextlib
import termios
from typing import Any

_INPUT, _LOCAL, _CONTROLS = 0, 3, 6
_INPUT_OFF = (
    termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON | termios.ISTRIP | termios.BRKINT
)
_LOCAL_OFF = termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN


class RawMode:
    """Of one terminal. Output processing stays on, so that a traceback still looks like one."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] | None = None

    def enter(self) -> None:
        """Each key is readable at once and none is a signal; what was typed before is kept."""
        before = termios.tcgetattr(self._fd)
        raw = termios.tcgetattr(self._fd)
        raw[_INPUT] &= ~_INPUT_OFF
        raw[_LOCAL] &= ~_LOCAL_OFF
        raw[_CONTROLS][termios.VMIN], raw[_CONTROLS][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSANOW, raw)
        self._before = before

    def leave(self) -> None:
        """As before ``enter``; nothing happens the second time, or when the terminal is gone."""
        before, self._before = self._before, None
        if before is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._fd, termios.TCSADRAIN, before)
