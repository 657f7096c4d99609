"""Whole screens, as a person sees them: all parts together."""

import pytest

from tests.agent.terminal.emulator import Emulator, KeptOutput, ManualTimers
from tightloop.agent.terminal.capabilities import Capabilities
from tightloop.agent.terminal.command_view import CommandView
from tightloop.agent.terminal.editor import Editor
from tightloop.agent.terminal.keys import Key
from tightloop.agent.terminal.markdown import MarkdownView
from tightloop.agent.terminal.painter import Cursor
from tightloop.agent.terminal.patch_view import PatchView
from tightloop.agent.terminal.screen import Screen
from tightloop.agent.terminal.styled import Role, line
from tightloop.trace.clock import ManualClock

CAPABILITIES = {
    "colour": Capabilities(can_redraw=True, has_attributes=True, has_colour=True),
    "no colour": Capabilities(can_redraw=True, has_attributes=True),
    "dumb": Capabilities(),
}
View = MarkdownView | CommandView | PatchView


class Stage:
    """One view after the other above an editor and a status line."""

    def __init__(self, columns: int, rows: int, capabilities: Capabilities) -> None:
        self.emulator = Emulator(columns, rows)
        self.clock = ManualClock()
        self.output = KeptOutput()
        self.screen = Screen(
            self.output,
            lambda: self.emulator.size,
            capabilities,
            clock=self.clock,
            call_later=ManualTimers(),
        )
        self.editor = Editor()
        self.written = b""

    def show(self, view: View | None) -> None:
        """A frame."""
        size = self.screen.size
        rows = []
        if view is not None:
            self.screen.append(view.take(size.columns))
            rows = view.live(size.columns, 4)
        laid = self.editor.layout(size.columns, 3)
        status = line("model  812 tokens/s", Role.DIM)
        cursor = Cursor(len(rows) + laid.cursor.row, laid.cursor.column)
        self.screen.set_live([*rows, *laid.lines, status], cursor)
        self.screen.draw()
        data = self.output.take()
        self.written += data
        self.emulator.feed(data.replace(b"\n", b"\r\n") if self.screen.is_plain else data)

    def play(self) -> None:
        """A message, a command with hostile output, a patch that is still being written."""
        message = MarkdownView()
        for piece in ("I'll run **the ", "tests** of `calc", "` first; 日本語 too.\n"):
            message.feed(piece)
            self.show(message)
        message.finish()
        self.show(message)
        command = CommandView("pytest -q", self.clock)
        for number in range(40):
            command.feed(f"\x1b[2J\x1b[31mtest {number}\x1b[0m\x1b]0;title\x07\n")
        self.editor.press(Key("text", "go on"))
        self.show(command)
        command.finish(1, how="warm-pytest-l1", seconds=0.25)
        self.show(command)
        patch = PatchView()
        patch.feed("*** Begin Patch\n*** Update File: calc.py\n@@\n-a\n+b\n+still being wr")
        self.show(patch)


END = """\
  … 28 more rows
  test 32
  test 33
  test 34
  test 35
  test 36
  test 37
  test 38
  test 39
  exit 1, 250 ms, warm-pytest-l1
M calc.py
  @@
  - a
  + b
"""
LIVE = """\
  + still being wr
> go on
model  812 tokens/s
"""
BEGIN = """\
I'll run the tests of calc first; 日本語 too.
$ pytest -q
  test 0
  test 1
  test 2
  test 3
"""


@pytest.mark.parametrize("name", ["colour", "no colour"])
def test_80_by_24(name: str) -> None:
    """The same screen with and without colours, without one of a command's own."""
    stage = Stage(80, 24, CAPABILITIES[name])
    stage.play()
    assert (BEGIN + END + LIVE).splitlines() == stage.emulator.rows()
    assert b"2J" not in stage.written
    assert b"title" not in stage.written
    coloured = {colour for row in range(24) for _, colour, _, _ in stage.emulator.styles(row)} - {
        "default"
    }
    assert coloured == ({"green", "red", "cyan"} if name == "colour" else set())


def test_40_by_10() -> None:
    """The last ten rows; what is above is in the scrollback."""
    stage = Stage(40, 10, CAPABILITIES["colour"])
    stage.play()
    expected = (BEGIN + END + LIVE).replace("日本語 ", "日本語\n").splitlines()
    assert expected == stage.emulator.rows()
    assert expected[-10:] == stage.emulator.screen_rows()


def test_a_dumb_terminal() -> None:
    """What is finished, as plain text: no live region, no sequence."""
    stage = Stage(80, 24, CAPABILITIES["dumb"])
    stage.play()
    assert (BEGIN + END).splitlines() == stage.emulator.rows()
    assert b"\x1b" not in stage.written


def test_a_resize_in_the_middle() -> None:
    """Rows of the scrollback stay, live ones are laid out for the new width."""
    stage = Stage(80, 24, CAPABILITIES["colour"])
    message = MarkdownView()
    message.feed("one two three four five six seven")
    stage.show(message)
    stage.emulator.resize(20, 6)
    message.feed(" eight")
    stage.show(message)
    assert stage.emulator.rows()[:2] == ["one two three four", "five six seven eight"]
    message.finish()
    stage.show(message)
    stage.show(None)
    expected = ["one two three four", "five six seven eight", "> ", "model  812 tokens/s"]
    assert [row.rstrip() for row in expected] == stage.emulator.rows()
