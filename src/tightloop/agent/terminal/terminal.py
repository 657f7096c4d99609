"""Takes a terminal over and gives it back as it was, whatever happens in between.

::

    with Terminal(os.environ) as terminal:      # raw: what is typed from here on is kept
        terminal.screen.set_live(...)
        terminal.screen.draw()                  # the first paint needs no event loop
        ...
        terminal.attach(on_key)                 # in the loop: keys, resizes, frames by themselves

It is given back when the block is left, when the interpreter ends, and on SIGTERM and SIGHUP.
"""

import atexit
import os
import signal
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from tightloop.agent.terminal.capabilities import Capabilities
from tightloop.agent.terminal.keys import Key
from tightloop.agent.terminal.output import FdOutput
from tightloop.agent.terminal.painter import Size
from tightloop.agent.terminal.raw_mode import RawMode
from tightloop.agent.terminal.screen import Screen

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from tightloop.agent.terminal.key_reader import KeyReader

FALLBACK_SIZE = Size(80, 24)
_PASTES = ("\x1b[?2004h", "\x1b[?2004l")
"""Bracketed paste, on and off."""
_KEYS = ("\x1b[>1u", "\x1b[<u")
"""Unambiguous keys where the terminal knows that protocol: Esc then needs no waiting."""
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminal:
    """A terminal or, where there is none, a pair of pipes. To be entered once.

    Its output is a terminal that can redraw, or ``screen`` is plain. Its input is a terminal
    in raw mode if it can be and the output is not plain, else each line comes as two keys.
    """

    def __init__(
        self, environ: Mapping[str, str], *, input_fd: int = 0, output_fd: int = 1
    ) -> None:
        self._environ = environ
        self._input_fd, self._output_fd = input_fd, output_fd
        self._capabilities = Capabilities.of(environ, is_tty=os.isatty(output_fd))
        self._output = FdOutput(output_fd)
        self.screen = Screen(self._output, self._measured, self._capabilities)
        is_raw = self._capabilities.can_redraw and os.isatty(input_fd)
        self._raw = RawMode(input_fd) if is_raw else None
        self._reader: KeyReader | None = None
        self._loop: AbstractEventLoop | None = None
        self._on_terminate: Callable[[], None] | None = None
        self._handlers: dict[signal.Signals, object] = {}
        self._is_open = False

    @property
    def has_keys(self) -> bool:
        """Whether single keys can be read, not only lines."""
        return self._raw is not None

    def __enter__(self) -> "Terminal":
        atexit.register(self.close)
        self._is_open = True
        for number in _ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                self._handlers[number] = signal.signal(number, self._ended_by)
        self._take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def attach(
        self, on_key: Callable[[Key], None], on_terminate: Callable[[], None] | None = None
    ) -> None:
        """From now on the running loop calls ``on_key`` and draws frames.

        SIGTERM and SIGHUP give the terminal back, then call ``on_terminate``; without it, the process
        ends by that signal.
        """
        import asyncio

        from tightloop.agent.terminal.key_reader import KeyReader

        self._loop = asyncio.get_running_loop()
        self._on_terminate = on_terminate
        self._output.attach(self._loop)
        self.screen.attach(self._loop.call_later)
        if self._capabilities.can_redraw:
            self._loop.add_signal_handler(signal.SIGWINCH, self.screen.touch)
        for number in self._handlers:
            self._loop.add_signal_handler(number, self._ended_by, number, None)
        is_raw = self._raw is not None
        self._reader = KeyReader(self._loop, self._input_fd, on_key, is_raw=is_raw)

    def suspend(self) -> None:
        """Ctrl-Z: gives the terminal back and stops, as the shell expects; returns in the foreground."""
        if self.screen.is_plain:
            return
        self.screen.leave()
        self._give_back()
        os.kill(0, signal.SIGTSTP)
        self._take()
        self.screen.come_back()

    def close(self) -> None:
        """Everything that was appended is drawn, and the terminal is as it was. Once."""
        if not self._is_open:
            return
        self._is_open = False
        atexit.unregister(self.close)
        if self._loop is not None and not self._loop.is_closed():
            self._detach(self._loop)
        self._output.attach(None)
        try:
            self.screen.close()
        finally:
            self._give_back()
            self._output.close()
            for number, handler in self._handlers.items():
                signal.signal(number, handler)  # type: ignore[arg-type]

    def _detach(self, loop: "AbstractEventLoop") -> None:
        if self._reader is not None:
            self._reader.stop()
        self.screen.attach(None)
        if self._capabilities.can_redraw:
            loop.remove_signal_handler(signal.SIGWINCH)
        for number in self._handlers:
            loop.remove_signal_handler(number)

    def _ended_by(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.close()
        if self._on_terminate is not None:
            self._on_terminate()
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _take(self) -> None:
        if self._raw is not None:
            self._raw.enter()
            self._output.write((_PASTES[0] + self._protocol(0)).encode())

    def _give_back(self) -> None:
        if self._raw is not None:
            self._output.write((self._protocol(1) + _PASTES[1]).encode())
            self._output.drain()
            self._raw.leave()

    def _protocol(self, index: int) -> str:
        return _KEYS[index] if self._capabilities.reports_keys else ""

    def _measured(self) -> Size:
        try:
            columns, rows = os.get_terminal_size(self._output_fd)
        except OSError:
            columns = rows = 0
        if columns and rows:
            return Size(columns, rows)
        given = self._environ.get("COLUMNS", "")
        wide = int(given) if given.isdigit() and int(given) else FALLBACK_SIZE.columns
        return Size(wide, FALLBACK_SIZE.rows)
