"""A program in a terminal of its own, for tests of how it leaves: ``python -m ... HOW``.

``shell`` runs another one as a shell does it, in a process group that can be stopped.
"""

import asyncio
import fcntl
import os
import signal
import sys
import termios

from tightloop.agent.terminal.keys import Key
from tightloop.agent.terminal.painter import Cursor
from tightloop.agent.terminal.styled import line
from tightloop.agent.terminal.terminal import Terminal


async def _show(terminal: Terminal, how: str) -> None:
    over = asyncio.Event()

    def on_key(key: Key) -> None:
        if key.name == "ctrl-z":
            terminal.suspend()
        elif key.name == "esc":
            over.set()
        else:
            terminal.screen.append([line(f"key {key.name} {key.text}".rstrip())])

    terminal.attach(on_key)
    terminal.screen.append([line("ready")])
    terminal.screen.set_live([line("working"), line("> ")], Cursor(1, 2))
    await over.wait()
    if how == "exception":
        raise ValueError("something else went wrong")
    if how == "sys.exit":
        sys.exit(3)


def _program(how: str) -> None:
    with Terminal(os.environ) as terminal:
        terminal.screen.set_live([line("first paint")])
        terminal.screen.draw()
        asyncio.run(_show(terminal, how))


def _shell() -> None:
    """Runs the program in the foreground; when it stops, says so and brings it back."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        _program("esc")
        os._exit(0)
    _, status = os.waitpid(child, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        os.tcsetpgrp(0, os.getpgrp())
        echoes = bool(termios.tcgetattr(0)[3] & termios.ECHO)
        os.write(1, f"stopped, echo {echoes}\r\n".encode())
        os.tcsetpgrp(0, child)
        os.kill(-child, signal.SIGCONT)
        os.waitpid(child, 0)


def main() -> None:
    """See the module."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if sys.argv[1] == "shell":
        _shell()
    else:
        _program(sys.argv[1])


if __name__ == "__main__":
    main()
