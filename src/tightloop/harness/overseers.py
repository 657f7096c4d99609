"""Several overseers of one conversation, asked one after another."""

from collections.abc import Sequence

from tightloop.agent.overseer import Overseer
from tightloop.trace.check_runs import CheckFigures
from tightloop.trace.speculation import Try


class Overseers:
    """An ``Overseer`` made of several."""

    def __init__(self, overseers: Sequence[Overseer]) -> None:
        self._overseers = overseers

    def begin_turn(self, prompt: str) -> None:
        """See ``Overseer.begin_turn``."""
        for one in self._overseers:
            one.begin_turn(prompt)

    def take_news(self) -> list[str]:
        """See ``Overseer.take_news``."""
        return [text for one in self._overseers for text in one.take_news()]

    async def objections(self) -> list[str] | None:
        """See ``Overseer.objections``."""
        found = [await one.objections() for one in self._overseers]
        known = [texts for texts in found if texts is not None]
        return [text for texts in known for text in texts] if known else None

    async def finish_turn(self) -> list[Try]:
        """See ``Overseer.finish_turn``."""
        return [one for overseer in self._overseers for one in await overseer.finish_turn()]

    def check_figures(self) -> CheckFigures | None:
        """See ``Overseer.check_figures``: of the first that has any."""
        return next((found for one in self._overseers if (found := one.check_figures())), None)
