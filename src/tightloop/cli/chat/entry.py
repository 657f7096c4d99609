"""From the command line to the first paint, and from the last key to the exit status.

The first paint comes before anything is opened, and before what that needs is imported::

    raw mode, banner, editor -> own namespace (one thread, still) -> event loop -> the rest
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import tightloop
from tightloop.agent.terminal.editor import Editor
from tightloop.agent.terminal.history import History
from tightloop.agent.terminal.printable import printable
from tightloop.agent.terminal.screen import Screen
from tightloop.agent.terminal.styled import EMPTY, Line, Role, spans
from tightloop.agent.terminal.terminal import Terminal
from tightloop.cli.chat.commands import COMMANDS
from tightloop.cli.chat.completing import Completing
from tightloop.cli.chat.controller import Controller
from tightloop.cli.chat.exit_status import BAD_USAGE
from tightloop.cli.chat.picture import Moment, picture
from tightloop.cli.chat.status import Gauges

if TYPE_CHECKING:
    import argparse

HINT = "what shall be done?"


def run(arguments: "argparse.Namespace") -> int:
    """0 left by the user, 1 crashed, 2 cannot start, 130 ended by a signal."""
    if not sys.stdout.isatty():
        return _refused("standard output is not a terminal; 'tightloop exec' prints its result")
    repo = arguments.repo or Path()
    if not repo.is_dir():
        return _refused(f"--repo: {str(repo)!r} is not a directory")
    with Terminal(os.environ) as terminal:
        _paint(terminal.screen, repo)
        from tightloop.trace.log import state_directory

        state_dir = arguments.state_dir or state_directory()
        from tightloop.sandbox import own_namespace
        from tightloop.sandbox.interface import SandboxError

        try:  # while there is one thread: an ordinary user's workspace is an overlay then, too
            own_namespace.enter(state_dir)
        except (SandboxError, OSError) as error:
            terminal.close()
            return _refused(str(error))
        from tightloop.cli.chat.running import run_chat

        completing = Completing(COMMANDS)
        editor = Editor(History(state_dir / "history"), completing, hint=HINT)
        return run_chat(terminal, editor, completing, arguments)


def _paint(screen: Screen, repo: Path) -> None:
    """All that can be shown without having opened anything."""
    name = f"tightloop {tightloop.__version__}"
    place = _with_tilde(repo.resolve())
    screen.append([spans((name, Role.STRONG), (f"  {place}  /help", Role.DIM)), EMPTY])
    editor = Editor(hint=HINT)
    shown = picture(
        Controller(editor, COMMANDS), editor, _Nothing(), Gauges(), Moment(), screen.size
    )
    screen.set_live(*shown)
    screen.draw()


class _Nothing:
    """Nothing streams in yet."""

    def live(self, width: int, max_rows: int) -> list[Line]:
        return []


def _with_tilde(path: Path) -> str:
    home = os.path.expanduser("~")
    text = str(path)
    return f"~{text[len(home) :]}" if text == home or text.startswith(f"{home}/") else text


def _refused(message: str) -> int:
    print(f"tightloop: {printable(message)}", file=sys.stderr)
    return BAD_USAGE
