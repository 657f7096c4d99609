"""Whoever watches a conversation: a person at a terminal, a program that reads events, a test."""

from typing import Protocol

from tightloop.agent import events as said


class Audience(Protocol):
    """Both are called on the event loop, must be quick and must not raise."""

    is_json: bool
    """Whether it reads events and no notes: what is found out beside the agent becomes events."""

    def note(self, text: str) -> None:
        """A line for a person, safe for a terminal."""

    def listen(self, event: said.Event) -> None:
        """See ``events.Listener``."""
