"""What can be typed behind a slash."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_COMMAND = re.compile(r"/([a-z?]+)(?:\s+(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """``is_aside``: works at any time, also while a turn runs, which it leaves alone.
    ``is_long``: takes so long that Esc ends it."""

    name: str
    argument: str
    summary: str
    is_aside: bool = False
    is_long: bool = False

    @property
    def usage(self) -> str:
        """As a person types it."""
        return f"/{self.name} {self.argument}".rstrip()


@dataclass(frozen=True, slots=True)
class Typed:
    """A line that means a command: its name without the slash, and what stands behind it."""

    name: str
    argument: str


def parse(text: str) -> Typed | None:
    """None for a message. A path is one: ``/usr/bin/env is missing``."""
    match = _COMMAND.fullmatch(text.strip())
    return None if match is None else Typed(match[1], (match[2] or "").strip())


COMMANDS: Sequence[Command] = (
    Command("apply", "[merge|force]", "write the changes into your files"),
    Command("approvals", "[MODE]", "what is asked before it runs, or change it", is_aside=True),
    Command("compact", "[WHAT]", "shorten the conversation for the model", is_long=True),
    Command("diff", "", "what has changed and is not applied yet", is_aside=True),
    Command("help", "", "commands and keys", is_aside=True),
    Command("latency", "", "where the time went: last turn and session", is_aside=True),
    Command("model", "[NAME]", "the model, or go on with another one"),
    Command("quit", "", "end; the conversation is kept", is_aside=True),
    Command("race", "[N]", "the next turn as a race of N attempts"),
    Command("redo", "", "take the last /undo back"),
    Command("resume", "[NUMBER|ID]", "past conversations here, or go on with one"),
    Command("review", "[WHAT]", "let the model review: uncommitted, branch, commit SHA",
            is_long=True),
    Command("undo", "", "take back what the last turn did to files"),
)  # fmt: skip
"""In the order of ``/help``."""

KEYS: Sequence[tuple[str, str]] = (
    ("Enter", "send; steer a running turn; alone: promote what waits"),
    ("Tab", "queue behind the turn; complete /commands and @paths"),
    ("Esc", "interrupt; again: take queued messages back"),
    ("Ctrl-C", "clear the line or interrupt; twice: quit"),
    ("Ctrl-D", "quit, on an empty line"),
    ("Ctrl-J", "a new line in the message"),
    ("Ctrl-Z", "back to the shell; 'fg' returns"),
    ("Up, Down", "earlier messages"),
)
"""In the order of ``/help``."""
