import asyncio

import pytest

from benchmarks.workshop.turns import Turns


async def test_everybody_has_one_turn_a_round_in_order() -> None:
    turns, seen = Turns(["a", "b", "c"]), list[str]()

    async def member(name: str) -> None:
        for _ in range(3):
            await turns.take(name)
            seen.append(name)
            await turns.give(name)

    async with asyncio.TaskGroup() as tasks:
        for name in "cab":
            tasks.create_task(member(name))
    assert seen == list("abc") * 3


async def test_who_leaves_is_passed_over_also_in_its_turn() -> None:
    turns = Turns(["a", "b"])
    await turns.take("a")
    waiting = asyncio.create_task(turns.take("b"))
    await turns.leave("a")
    await waiting
    await turns.leave("a")
    await turns.give("b")
    await turns.take("b")
    with pytest.raises(ValueError, match="'a' takes no turns"):
        await turns.take("a")


async def test_a_turn_that_is_not_ones_own_cannot_be_given_away() -> None:
    turns = Turns(["a", "b"])
    await turns.give("b")
    await turns.take("a")


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_members_need_distinct_names(names: list[str]) -> None:
    with pytest.raises(ValueError, match="distinct names"):
        Turns(names)
