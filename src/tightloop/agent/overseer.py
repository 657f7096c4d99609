"""What the loop asks besides the model: what goes on beside the conversation, and what speaks against it."""

from typing import Protocol

from tightloop.trace.check_runs import CheckFigures
from tightloop.trace.speculation import Try


class Overseer(Protocol):
    """One conversation's; ``workbench.Workbench`` is one."""

    def begin_turn(self, prompt: str) -> None:
        """The user has said this."""

    def take_news(self) -> list[str]:
        """What was found out about verdicts that the model has seen; each text is to be told."""

    async def objections(self) -> list[str] | None:
        """The model has said its last word: what speaks against calling that a success.

        None when there was nothing to check.
        """

    async def finish_turn(self) -> list[Try]:
        """The turn is over, nothing runs on; what ran ahead in it."""

    def check_figures(self) -> CheckFigures | None:
        """What continuous checks came to in the turn; None when none has ended."""


class NoOverseer:
    """Nothing goes on beside the conversation."""

    def begin_turn(self, prompt: str) -> None:
        """Nothing to note."""

    def take_news(self) -> list[str]:
        """There is none."""
        return []

    async def objections(self) -> list[str] | None:
        """There was nothing to check."""
        return None

    async def finish_turn(self) -> list[Try]:
        """Nothing was tried."""
        return []

    def check_figures(self) -> CheckFigures | None:
        """Nothing is checked."""
        return None
