"""The live region: what is in it, and that it always fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.agent.terminal.editor import Editor
from tightloop.agent.terminal.keys import Key
from tightloop.agent.terminal.painter import Cursor, Size
from tightloop.agent.terminal.styled import Line, line
from tightloop.cli.chat.commands import COMMANDS
from tightloop.cli.chat.controller import Controller, Ending
from tightloop.cli.chat.picture import Moment, picture
from tightloop.cli.chat.questions import Choice, Question
from tightloop.cli.chat.status import Gauges

GAUGES = Gauges("patchling", "in process", "bubblewrap", "auto")


class Streams:
    """So many rows stream in."""

    def __init__(self, num_rows: int = 0) -> None:
        self._num_rows = num_rows

    def live(self, width: int, max_rows: int) -> list[Line]:
        return [line(f"row {number}") for number in range(self._num_rows)][:max_rows]


def drawn(
    controller: Controller, editor: Editor, size: Size, num_rows: int = 0, seconds: float = 0.0
) -> tuple[list[str], Cursor]:
    moment = Moment(seconds)
    rows, cursor = picture(controller, editor, Streams(num_rows), GAUGES, moment, size)
    return [row.plain for row in rows], cursor


@pytest.fixture
def editor() -> Editor:
    return Editor()


@pytest.fixture
def controller(editor: Editor) -> Controller:
    controller = Controller(editor, COMMANDS)
    controller.opened()
    return controller


WIDE = Size(80, 24)


def test_idle(controller: Controller, editor: Editor) -> None:
    rows, cursor = drawn(controller, editor, WIDE)
    assert rows == ["> ", "patchling · bubblewrap · auto · in process"]
    assert cursor == Cursor(0, 2)


def test_opening(editor: Editor) -> None:
    controller = Controller(editor, COMMANDS)
    controller.post("soon")
    rows, _ = drawn(controller, editor, WIDE, seconds=2.5)
    assert rows[:3] == ["sent when open: soon", "> ", "opening 2.5 s"]


def test_running_with_all_there_is(controller: Controller, editor: Editor) -> None:
    controller.post("go")
    controller.post("steered")
    controller.mailbox.queue("queued")
    controller.asked(Question(1, "run it?", (Choice("y", "once"),), details=("because",)), 0)
    rows, cursor = drawn(controller, editor, WIDE, num_rows=2, seconds=61)
    assert rows == [
        "row 0", "row 1", "",
        "will be seen at the next step: steered", "queued: queued",
        "run it?", "  because", "[y] once",
        "> ", "working 61.0 s  Esc interrupts, Enter steers, Tab queues",
        "patchling · bubblewrap · auto · in process",
    ]  # fmt: skip
    assert cursor.row == 8


def test_many_messages_are_counted(controller: Controller, editor: Editor) -> None:
    controller.post("go")
    for number in range(6):
        controller.mailbox.queue(f"m{number}")
    rows, _ = drawn(controller, editor, WIDE)
    assert rows[:4] == ["queued: m0", "queued: m1", "queued: m2", "and 3 more"]


def test_held_messages_say_what_to_do(controller: Controller, editor: Editor) -> None:
    controller.post("go")
    controller.mailbox.queue("later")
    controller.turn_ended(Ending(False), 0)
    rows, _ = drawn(controller, editor, WIDE)
    assert rows[:3] == ["held: later", "> ", "Enter sends the next, Esc takes all back"]


@given(
    columns=st.integers(1, 120),
    rows=st.integers(1, 50),
    text=st.text(max_size=300),
    num_streaming=st.integers(0, 60),
    num_waiting=st.integers(0, 8),
    details=st.lists(st.text(max_size=100), max_size=20),
)
def test_it_always_fits(
    columns: int, rows: int, text: str, num_streaming: int, num_waiting: int, details: list[str]
) -> None:
    """Whatever is going on, there is an editor with the cursor in it."""
    editor = Editor()
    controller = Controller(editor, COMMANDS)
    controller.opened()
    controller.post("go")
    for _ in range(num_waiting):
        controller.mailbox.queue("message")
    controller.asked(Question(1, "really?", (Choice("y", "yes"),), details=tuple(details)), 0)
    editor.press(Key("paste", text))
    shown, cursor = drawn(controller, editor, Size(columns, rows), num_streaming)
    assert 1 <= len(shown) <= max(1, rows - 1)
    assert 0 <= cursor.row < len(shown)
