"""What the controller wants done: by the agent, by the terminal."""

from dataclasses import dataclass

from tightloop.agent.terminal.styled import Line
from tightloop.cli.chat.mailbox import Message


@dataclass(frozen=True, slots=True)
class Print:
    """Lines for the scrollback."""

    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Send:
    """Begin a turn with it; answered by ``turn_ended``."""

    message: Message


@dataclass(frozen=True, slots=True)
class Steer:
    """For the turn that runs; answered by ``delivered`` when the model gets it."""

    message: Message


@dataclass(frozen=True, slots=True)
class Interrupt:
    """End the turn that runs. Comes once a turn at most."""


@dataclass(frozen=True, slots=True)
class Run:
    """A command. Answered by ``job_ended``, unless it runs aside."""

    name: str
    argument: str = ""
    is_aside: bool = False


@dataclass(frozen=True, slots=True)
class CancelJob:
    """End the command that runs; answered by its ``job_ended`` all the same."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The user's answer to a question of the agent."""

    question_id: int
    key: str


@dataclass(frozen=True, slots=True)
class Suspend:
    """The user wants the shell that started us."""


@dataclass(frozen=True, slots=True)
class Quit:
    """End everything. Nothing comes after it."""


Operation = Print | Send | Steer | Interrupt | Run | CancelJob | Answer | Suspend | Quit
