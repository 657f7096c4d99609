"""Any keys in any order, against a pretended agent: no message is lost and none is sent twice."""

import re

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tightloop.agent.terminal.editor import Editor
from tightloop.agent.terminal.keys import Key
from tightloop.cli.chat.commands import COMMANDS
from tightloop.cli.chat.controller import Applying, Controller, Ending, Phase
from tightloop.cli.chat.operations import CancelJob, Interrupt, Operation, Quit, Run, Send, Steer
from tightloop.cli.chat.questions import GUARD_NS, Choice, Question

TOKEN = re.compile(r"m\d+")
ASKED = Question(1, "run it?", (Choice("y", "once"), Choice("n", "no")))


class Chatting(RuleBasedStateMachine):
    """Each token is typed once. Afterwards it is in exactly one place."""

    def __init__(self) -> None:
        super().__init__()
        self.editor = Editor()
        self.controller = Controller(self.editor, COMMANDS, Applying.ASK)
        self.now_ns = 0
        self.num_typed = 0
        self.cleared: set[str] = set()
        self.is_open = False
        self.is_running = self.is_interrupted = False
        self.has_question = False
        self.job = ""
        self.sent: list[str] = []
        self.inbox: list[tuple[int, str]] = []

    def follow(self, operations: list[Operation]) -> None:
        """What the rest of the program does, at once."""
        for operation in operations:
            assert self.controller.phase is not Phase.CLOSING or isinstance(operation, Quit)
            if isinstance(operation, Send):
                assert self.is_open
                assert not self.is_running
                assert not self.job
                self.is_running, self.is_interrupted = True, False
                self.sent.append(operation.message.text)
            elif isinstance(operation, Steer):
                assert self.is_running
                self.inbox.append((operation.message.number, operation.message.text))
            elif isinstance(operation, Interrupt):
                assert self.is_running
                assert not self.is_interrupted
                self.is_interrupted = True
            elif isinstance(operation, Run) and not operation.is_aside:
                assert not self.is_running
                assert not self.job
                self.job = operation.name
            elif isinstance(operation, CancelJob):
                assert self.job

    def press(self, name: str, text: str = "") -> None:
        self.now_ns += GUARD_NS
        self.follow(self.controller.press(Key(name, text), self.now_ns))

    # -- the person

    @rule(name=st.sampled_from(["", "enter", "enter", "enter", "tab", "tab"]))
    def type(self, name: str) -> None:
        """Most of what is typed is sent or queued."""
        self.num_typed += 1
        self.press("text", f" m{self.num_typed}")
        if name:
            self.press(name)

    @rule(name=st.sampled_from(["enter", "tab", "esc"]))
    def key(self, name: str) -> None:
        self.press(name)

    @rule()
    def clear(self) -> None:
        """Ctrl-C on a line that is not empty: what was typed is in the history only."""
        if self.editor.text:
            self.cleared.update(TOKEN.findall(self.editor.text))
            self.press("ctrl-c")

    @rule(text=st.sampled_from(["y", "n", "d", "/undo", "/review", "/latency", "/nonsense"]))
    def answer_or_command(self, text: str) -> None:
        """Each leaves the line empty, but for a command that was refused."""
        question = self.controller.question
        is_answer = question is not None and question.choice(text) is not None
        if not self.editor.text and (is_answer or text.startswith("/")):
            self.press("text", text)
            if text.startswith("/"):
                self.press("enter")
                self.editor.clear()
            self.has_question = self.has_question and self.controller.question is ASKED

    # -- the agent

    @initialize(num_typed=st.integers(0, 2))
    def opened(self, num_typed: int) -> None:
        """A person may have typed before."""
        for _ in range(num_typed):
            self.type("enter")
        self.is_open = True
        self.follow(self.controller.opened())

    @precondition(lambda self: self.is_running and self.inbox)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """The next request of the turn takes what has come until then."""
        for _ in range(data.draw(st.integers(1, len(self.inbox)))):
            number, text = self.inbox.pop(0)
            self.sent.append(text)
            self.follow(self.controller.delivered(number, 2))

    @precondition(lambda self: self.is_running and not self.has_question)
    @rule()
    def ask(self) -> None:
        self.has_question = True
        self.follow(self.controller.asked(ASKED, self.now_ns))

    @precondition(lambda self: self.is_running)
    @rule(is_well=st.booleans(), pending=st.sampled_from([(), ("a.py",)]))
    def end_turn(self, is_well: bool, pending: tuple[str, ...]) -> None:
        """The agent gives steers back that it has not sent."""
        if self.has_question:
            self.has_question = False
            self.follow(self.controller.withdrawn(ASKED.id, self.now_ns))
        self.is_running = False
        self.inbox.clear()
        ending = Ending(is_well and not self.is_interrupted, pending)
        self.follow(self.controller.turn_ended(ending, self.now_ns))

    @precondition(lambda self: self.job)
    @rule(pending=st.sampled_from([None, ()]))
    def end_job(self, pending: tuple[str, ...] | None) -> None:
        self.job = ""
        self.follow(self.controller.job_ended(self.now_ns, pending=pending))

    # -- what must hold

    @invariant()
    def every_token_is_in_one_place(self) -> None:
        mailbox = self.controller.mailbox
        texts = [*self.sent, self.editor.text]
        texts += [message.text for message in (*mailbox.waiting, *mailbox.steering)]
        found = [token for text in texts for token in TOKEN.findall(text)]
        typed = {f"m{number}" for number in range(1, self.num_typed + 1)}
        assert sorted(typed - self.cleared) == sorted(found)

    @invariant()
    def the_agent_has_what_is_steering(self) -> None:
        steering = [(one.number, one.text) for one in self.controller.mailbox.steering]
        assert steering == self.inbox

    @invariant()
    def the_phase_says_what_goes_on(self) -> None:
        phase = self.controller.phase
        assert (phase in (Phase.RUNNING, Phase.STOPPING)) == self.is_running
        assert (phase is Phase.STOPPING) == (self.is_running and self.is_interrupted)
        assert (phase is Phase.WORKING) == bool(self.job)
        assert (phase is Phase.OPENING) == (not self.is_open)

    @invariant()
    def nothing_waits_for_nothing(self) -> None:
        """Idle with messages that wait is only what the user has interrupted."""
        if self.controller.phase is Phase.IDLE and self.controller.mailbox.waiting:
            assert self.controller.mailbox.is_held


TestChatting = Chatting.TestCase
TestChatting.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
