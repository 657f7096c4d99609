"""What is asked of a person, and what can be answered.

An ``Approver`` is whoever can be asked: a dialog of the terminal, a program that uses the API, a
fake in tests. A run without one declines what would be asked.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Mode(StrEnum):
    """How much runs without a question. A mode never weakens the policy of the sandbox."""

    READ_ONLY = "read-only"
    """Commands that provably read only, no patches."""
    ASK = "ask"
    """Whatever is not provably reading, or allowed by a rule, is asked for."""
    AUTO = "auto"
    """What stays in the sandbox runs; what leaves it, or changes the checkout, is asked for."""
    FULL = "full"
    """Nothing isolates, nothing is asked."""


class Verdict(StrEnum):
    """What a person can answer."""

    ONCE = "once"
    """This time."""
    ALWAYS = "always"
    """Until the conversation ends: the decision's rules are allowed from now on."""
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer. ``word`` goes to the model with a denial; ``rules`` are what ``ALWAYS`` allows."""

    verdict: Verdict
    word: str = ""
    rules: tuple[str, ...] = ()

    @property
    def is_allowed(self) -> bool:
        """Whether the call may run."""
        return self.verdict is not Verdict.DENY


ALLOW_ONCE = Decision(Verdict.ONCE)
DENY = Decision(Verdict.DENY)


class Kind(StrEnum):
    """What a question is about."""

    COMMAND = "command"
    TOOL = "tool"
    """A tool that acts outside the sandbox, such as one of an MCP server."""
    APPLY = "apply"
    """Changes are about to be written into the user's checkout."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer that is offered. ``key`` is a single letter, ``label`` a few words.

    Whoever asks may add words to the decision of a denial: ``replace(choice.decision, word=...)``.
    """

    key: str
    label: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A question. All text is safe for a terminal.

    ``title`` is one line and says what would be done, ``reason`` why that is asked; ``details`` are
    lines to show below (the whole command, the paths, what to look at first). ``item_id`` is the
    call's in events; empty for ``APPLY``. ``choices`` begin with the least that lets it go on and
    end with the denial.
    """

    kind: Kind
    title: str
    reason: str
    details: tuple[str, ...] = ()
    item_id: str = ""
    choices: tuple[Choice, ...] = field(default=())


class Approver(Protocol):
    """Somebody who can be asked. One question at a time; cancelling it means it is of no interest
    any more, because the turn was ended."""

    async def ask(self, request: ApprovalRequest) -> Decision:
        """The answer, whenever it comes. Must not raise."""
