"""Several overseers are asked as one."""

from dataclasses import dataclass, field

from tightloop.agent.overseer import NoOverseer, Overseer
from tightloop.harness.overseers import Overseers
from tightloop.trace.check_runs import CheckFigures
from tightloop.trace.speculation import Try

TRY = Try("pytest", True, "", 0, 1, 2, 1, 0.1)


@dataclass
class One(NoOverseer):
    """Says what a test wants."""

    news: list[str]
    against: list[str] | None
    prompts: list[str] = field(default_factory=list)

    def begin_turn(self, prompt: str) -> None:
        self.prompts.append(prompt)

    def take_news(self) -> list[str]:
        return self.news

    async def objections(self) -> list[str] | None:
        return self.against

    async def finish_turn(self) -> list[Try]:
        return [TRY]

    def check_figures(self) -> CheckFigures | None:
        return CheckFigures(1)


async def test_all_are_asked() -> None:
    one, other = One(["a"], None), One(["b", "c"], ["no"])
    both: Overseer = Overseers((NoOverseer(), one, other))
    both.begin_turn("go")
    assert (one.prompts, other.prompts) == (["go"], ["go"])
    assert both.take_news() == ["a", "b", "c"]
    assert await both.objections() == ["no"]
    assert await both.finish_turn() == [TRY, TRY]
    assert both.check_figures() == CheckFigures(1)


async def test_nothing_to_say() -> None:
    """None is nothing checked, an empty list nothing found: one that has checked is enough."""
    assert await Overseers((NoOverseer(), One([], None))).objections() is None
    assert await Overseers((NoOverseer(), One([], []))).objections() == []
    assert Overseers((NoOverseer(),)).check_figures() is None
