"""Questions of the agent reach the person at the terminal: an ``Approver`` for the harness."""

import asyncio
import itertools
from typing import TYPE_CHECKING, Protocol

from tightloop.cli.chat.operations import Operation
from tightloop.cli.chat.questions import Choice, Question

if TYPE_CHECKING:
    from tightloop.agent.approval.interface import ApprovalRequest, Decision
    from tightloop.cli.chat.controller import Controller
    from tightloop.trace.clock import Clock


class Person(Protocol):
    """Whoever shows questions: the chat."""

    controller: "Controller"
    clock: "Clock"

    def do(self, operations: "list[Operation]") -> None:
        """Do what the controller wants."""


class Asking:
    """Open questions, by their ids."""

    def __init__(self, person: Person) -> None:
        self._person = person
        self._ids = itertools.count(1)
        self._open: dict[int, asyncio.Future[str]] = {}

    async def ask(self, request: "ApprovalRequest") -> "Decision":
        """See ``Approver``."""
        person, question_id = self._person, next(self._ids)
        question = question_of(request, question_id)
        answered = self._open[question_id] = asyncio.get_running_loop().create_future()
        person.do(person.controller.asked(question, person.clock.now_ns()))
        try:
            key = await answered
        finally:
            del self._open[question_id]
            person.do(person.controller.withdrawn(question_id, person.clock.now_ns()))
        return next(one.decision for one in request.choices if one.key == key)

    def answer(self, question_id: int, key: str) -> None:
        """The person has answered. A question that nobody waits for any more is passed over."""
        answered = self._open.get(question_id)
        if answered is not None and not answered.done():
            answered.set_result(key)


def question_of(request: "ApprovalRequest", question_id: int) -> Question:
    """As it is shown; Esc interrupts the turn and answers nothing."""
    choices = tuple(Choice(one.key, one.label) for one in request.choices)
    reason = (request.reason,) if request.reason else ()
    return Question(question_id, request.title, choices, details=(*reason, *request.details))
