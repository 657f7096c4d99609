"""Whoever keeps a conversation while it is made, so that it can go on after a crash."""

from collections.abc import Sequence
from typing import Protocol

from tightloop.protocol.items import Item


class Keeper(Protocol):
    """Both must be quick: they are called between two requests."""

    def settled(self, items: Sequence[Item]) -> None:
        """The whole conversation as the next request continues it."""

    def done(self, item: Item) -> None:
        """Said, called or put out since; it will be part of the conversation."""


class NoKeeper:
    """The conversation is gone with its process."""

    def settled(self, items: Sequence[Item]) -> None:
        """Not kept."""

    def done(self, item: Item) -> None:
        """Not kept."""
