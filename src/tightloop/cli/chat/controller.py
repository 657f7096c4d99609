"""What the keys do: a state machine between a person, the agent and the screen. No I/O.

::

    OPENING -> IDLE -> RUNNING -> (STOPPING ->) IDLE ...      a turn
                 \\--> WORKING -> IDLE                         a command that needs the conversation
    any -> CLOSING

Inputs are the methods; each returns the operations that follow from it, in order. Who carries them
out answers with the inputs that ``operations`` names. ``mailbox`` says where messages are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from tightloop.agent.terminal.keys import Key
from tightloop.agent.terminal.styled import Line, Role, line
from tightloop.cli.chat.commands import Command, Typed, parse
from tightloop.cli.chat.durations import counted
from tightloop.cli.chat.mailbox import Mailbox, Message
from tightloop.cli.chat.operations import (
    Answer,
    CancelJob,
    Interrupt,
    Operation,
    Print,
    Quit,
    Run,
    Send,
    Steer,
    Suspend,
)
from tightloop.cli.chat.questions import Choice, Question, Questions
from tightloop.cli.chat.words import delivered_lines, left_lines, message_lines

APPLY_ID = 0
"""The id of the question that is asked here; those of others are above it."""
QUIT_HINT = "Ctrl-C again quits"


class Phase(Enum):
    """What goes on; see the module."""

    OPENING = "opening"
    IDLE = "idle"
    RUNNING = "running"
    STOPPING = "stopping"
    WORKING = "working"
    CLOSING = "closing"


class Applying(Enum):
    """What happens to changes after a turn that ended well."""

    ASK = "ask"
    AUTO = "auto"
    NEVER = "never"


class Draft(Protocol):
    """The line that is being typed: ``terminal.editor.Editor``."""

    @property
    def text(self) -> str: ...
    def press(self, key: Key) -> bool: ...
    def set_text(self, text: str) -> None: ...
    def clear(self) -> None: ...
    def take(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Ending:
    """How a turn ended; ``pending`` are the paths that the user's files do not hold yet."""

    is_well: bool
    pending: tuple[str, ...] = ()


class Controller:
    """One chat. ``commands`` are those that this one has."""

    def __init__(
        self, draft: Draft, commands: Sequence[Command], applying: Applying = Applying.ASK
    ) -> None:
        self.phase = Phase.OPENING
        self.applying = applying
        self.job = ""
        """The command that runs; empty in every phase but WORKING."""
        self.hint = ""
        """A line for the user until the next key."""
        self.mailbox = Mailbox()
        self.pending: tuple[str, ...] = ()
        self.commands = {command.name: command for command in commands}
        self._draft = draft
        self._questions = Questions()
        self._may_ask = False
        self._is_armed = False
        self._takes_back = False

    @property
    def question(self) -> Question | None:
        """The one that is shown."""
        return self._questions.first

    @property
    def is_busy(self) -> bool:
        """Whether something runs that the user waits for."""
        return self.phase in (Phase.RUNNING, Phase.STOPPING, Phase.WORKING)

    # -- keys

    def press(self, key: Key, now_ns: int) -> list[Operation]:
        """A key was pressed."""
        if self.phase is Phase.CLOSING:
            return []
        self.hint = ""
        is_armed, self._is_armed = self._is_armed, False
        if key.name == "ctrl-c":
            return self._ctrl_c(is_armed)
        choice = self._choice_of(key, now_ns)
        if choice is not None:
            return self._answer(choice, now_ns)
        if key.name == "tab" and self._draft.text.lstrip().startswith("/"):
            self._draft.press(key)
            return []
        if self._draft.press(key):
            return []
        if key.name == "enter":
            return self._enter(now_ns)
        if key.name == "tab":
            return self._tab()
        if key.name == "esc":
            return self._esc(now_ns)
        if key.name == "ctrl-d":
            return self._quit() if not self._draft.text else []
        return [Suspend()] if key.name == "ctrl-z" else []

    def post(self, text: str) -> list[Operation]:
        """A message as if it were typed and sent with Enter, whatever it looks like."""
        return self._post(text)

    def _choice_of(self, key: Key, now_ns: int) -> str | None:
        is_letter = key.name == "text" and len(key.text) == 1
        if not is_letter or self._draft.text:
            return None
        return self._questions.answer_of(key.text, now_ns)

    def _enter(self, now_ns: int) -> list[Operation]:
        text = self._draft.text
        if not text.strip():
            return self._promote()
        choice = None if self.question is None else self.question.choice(text)
        if choice is not None:
            self._draft.clear()
            return self._answer(choice, now_ns)
        typed = parse(text)
        if typed is not None:
            return self._command(typed)
        return self._post(self._draft.take())

    def _post(self, text: str) -> list[Operation]:
        if self.phase is Phase.IDLE:
            return [*self._dismiss(), *self._send(self.mailbox.send(text))]
        if self.phase is Phase.RUNNING:
            return [Steer(self.mailbox.steer(text))]
        if self.phase is Phase.STOPPING:
            self.mailbox.queue_urgent(text)
        else:
            self.mailbox.queue(text)
        return []

    def _tab(self) -> list[Operation]:
        if not self._draft.text.strip():
            return []
        text = self._draft.take()
        if self.phase is Phase.IDLE:
            return self._post(text)
        self.mailbox.queue(text)
        self.mailbox.release()
        return []

    def _promote(self) -> list[Operation]:
        """Enter on an empty line."""
        if self.phase is Phase.RUNNING:
            message = self.mailbox.promote()
            return [] if message is None else [Steer(message)]
        self.mailbox.release()
        return self._go_on() if self.phase is Phase.IDLE and self.mailbox.waiting else []

    def _command(self, typed: Typed) -> list[Operation]:
        command = self.commands.get(typed.name)
        if command is None:
            known = " ".join(f"/{name}" for name in self.commands)
            return [_error(f"there is no command /{typed.name}; there are: {known}")]
        if not command.is_aside and self.phase is not Phase.IDLE:
            waits_for = {
                Phase.OPENING: "the conversation is not open yet",
                Phase.WORKING: f"/{self.job} still runs",
            }.get(self.phase, "a turn runs, Esc ends it")
            return [_error(f"/{command.name} has to wait: {waits_for}")]
        self._draft.take()
        if command.name == "quit":
            return self._quit()
        if command.is_aside:
            return [Run(command.name, typed.argument, is_aside=True)]
        return [*self._dismiss(), *self._begin(command.name, typed.argument)]

    def _esc(self, now_ns: int) -> list[Operation]:
        question = self.question
        if question is not None and question.escape:
            return self._answer(question.escape, now_ns)
        if self.phase is Phase.RUNNING:
            return self._interrupt()
        if self.phase is Phase.STOPPING:
            self._takes_back = True
            return self._take_back()
        if self.phase is Phase.WORKING:
            return self._end_job()
        return self._take_back()

    def _ctrl_c(self, is_armed: bool) -> list[Operation]:
        if self._draft.text:
            self._draft.take()  # the history still has it
            self._is_armed = not self.is_busy
        elif is_armed:
            return self._quit()
        else:
            self._is_armed = True
        if self._is_armed:
            self.hint = QUIT_HINT
            if self.phase is Phase.RUNNING:
                return self._interrupt()
            if self.phase is Phase.WORKING:
                return self._end_job()
        return []

    def _end_job(self) -> list[Operation]:
        command = self.commands.get(self.job)
        return [CancelJob()] if command is not None and command.is_long else []

    def _interrupt(self) -> list[Operation]:
        self.phase = Phase.STOPPING
        return [Interrupt()]

    def _take_back(self) -> list[Operation]:
        self._give_back(self.mailbox.take_back())
        return []

    def _give_back(self, messages: Sequence[Message]) -> None:
        """Into the editor, before what is being typed."""
        if messages:
            draft = self._draft.text
            texts = [message.text for message in messages]
            self._draft.set_text("\n".join([*texts, draft] if draft else texts))

    def _quit(self) -> list[Operation]:
        self.phase = Phase.CLOSING
        return [Quit()]

    # -- the agent

    def opened(self, pending: tuple[str, ...] = ()) -> list[Operation]:
        """The conversation can begin, or go on with changes of before that are not applied."""
        if self.phase is not Phase.OPENING:
            return []
        self.pending = pending
        left = left_lines(pending)
        return [*([Print(tuple(left))] if left else []), *self._go_on()]

    def delivered(self, number: int, step: int | None) -> list[Operation]:
        """The model has got a steer, with this request of the turn."""
        message = self.mailbox.delivered(number)
        if message is None:
            return []
        return [Print(delivered_lines(message.text, step))]

    def turn_ended(self, ending: Ending, now_ns: int) -> list[Operation]:
        """The turn is over; steers that were not delivered are here again."""
        left = self.mailbox.turn_ended(is_well=ending.is_well, returns=self._takes_back)
        self._takes_back = False
        self.pending = ending.pending
        self._may_ask = ending.is_well and self.applying is Applying.ASK
        if self.phase is Phase.CLOSING:
            return []
        self._give_back(left)
        if ending.is_well and ending.pending and self.applying is Applying.AUTO:
            return self._begin("apply", "")
        said: list[Operation] = []
        if not ending.is_well and ending.pending:
            files = counted(len(ending.pending), "file")
            said = [_note(f"{files} changed, not applied: /apply, /diff or /undo")]
        return [*said, *self._go_on(now_ns)]

    def asked(self, question: Question, now_ns: int) -> list[Operation]:
        """The agent waits for an answer."""
        self._questions.add(question, now_ns)
        return []

    def withdrawn(self, question_id: int, now_ns: int) -> list[Operation]:
        """Nobody waits for the answer any more."""
        self._questions.drop(question_id, now_ns)
        return []

    # -- commands

    def job_ended(
        self,
        now_ns: int,
        lines: Sequence[Line] = (),
        *,
        pending: tuple[str, ...] | None = None,
    ) -> list[Operation]:
        """The command that ran has ended, and says so."""
        self.job = ""
        if pending is not None:
            self.pending = pending
        said: list[Operation] = [Print(tuple(lines))] if lines else []
        if self.phase is Phase.CLOSING:
            return said
        return [*said, *self._go_on(now_ns)]

    def _begin(self, name: str, argument: str) -> list[Operation]:
        self.phase, self.job = Phase.WORKING, name
        return [Run(name, argument)]

    def _go_on(self, now_ns: int = 0) -> list[Operation]:
        """Nothing runs: the next message, or the question about the changes."""
        self.phase = Phase.IDLE
        message = self.mailbox.take_next()
        if message is not None:
            return [*self._dismiss(), *self._send(message)]
        if self._may_ask and self.pending:
            self._may_ask = False
            return self.asked(_apply_question(self.pending), now_ns)
        return []

    def _send(self, message: Message) -> list[Operation]:
        self.phase = Phase.RUNNING
        return [Print(message_lines(message.text)), Send(message)]

    # -- questions

    def _answer(self, choice: str, now_ns: int) -> list[Operation]:
        question = self.question
        if question is None:
            return []
        if question.id != APPLY_ID:
            self._questions.drop(question.id, now_ns)
            return [Answer(question.id, choice)]
        if choice == "d":
            return [Run("diff", is_aside=True)]
        self._questions.drop(APPLY_ID, now_ns)
        return self._begin("apply", "") if choice == "y" else [_note(_LATER)]

    def _dismiss(self) -> list[Operation]:
        """The user goes on without an answer about the changes."""
        return [_note(_LATER)] if self._questions.drop(APPLY_ID, 0) else []


_LATER = "not applied; /apply does it later, /undo takes the changes back"
_ANSWERS = (Choice("y", "yes"), Choice("n", "no"), Choice("d", "diff"))


def _apply_question(pending: Sequence[str]) -> Question:
    files = counted(len(pending), "file")
    return Question(APPLY_ID, f"apply {files}?", _ANSWERS, "n")


def _error(text: str) -> Print:
    return Print((line(text, Role.ERROR),))


def _note(text: str) -> Print:
    return Print((line(text, Role.DIM),))
