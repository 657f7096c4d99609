"""Questions of the agent reach the person, and answers the agent."""

import asyncio
from collections.abc import Sequence

import pytest

from tightloop.agent.approval.interface import (
    ALLOW_ONCE,
    DENY,
    ApprovalRequest,
    Choice,
    Decision,
    Kind,
)
from tightloop.agent.terminal.editor import Editor
from tightloop.cli.chat.asking import Asking, question_of
from tightloop.cli.chat.commands import COMMANDS
from tightloop.cli.chat.controller import Controller
from tightloop.cli.chat.operations import Operation
from tightloop.trace.clock import Clock, ManualClock

REQUEST = ApprovalRequest(
    Kind.COMMAND, "run: make", "it may write", ("make all",),
    choices=(Choice("y", "once", ALLOW_ONCE), Choice("n", "no", DENY)),
)  # fmt: skip


class Person:
    """Somebody at a terminal."""

    def __init__(self) -> None:
        self.controller = Controller(Editor(), COMMANDS)
        self.clock: Clock = ManualClock()
        self.asked = asyncio.Event()

    def do(self, operations: Sequence[Operation]) -> None:
        assert not operations
        self.asked.set()


@pytest.fixture
def person() -> Person:
    return Person()


def test_what_is_shown() -> None:
    """Esc is no answer: it interrupts the turn."""
    question = question_of(REQUEST, 7)
    assert (question.id, question.text, question.escape) == (7, "run: make", "")
    assert question.details == ("it may write", "make all")
    assert question.answers == "[y] once  [n]o"


@pytest.mark.parametrize(("key", "decision"), [("y", ALLOW_ONCE), ("n", DENY)])
async def test_an_answer(person: Person, key: str, decision: Decision) -> None:
    asking = Asking(person)
    asked = asyncio.create_task(asking.ask(REQUEST))
    await person.asked.wait()
    question = person.controller.question
    assert question is not None
    asking.answer(question.id, key)
    assert await asked == decision
    assert person.controller.question is None


async def test_an_interrupted_turn_takes_its_question_back(person: Person) -> None:
    asking = Asking(person)
    asked = asyncio.create_task(asking.ask(REQUEST))
    await person.asked.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert person.controller.question is None
    asking.answer(1, "y")  # a key that was pressed at the same moment
