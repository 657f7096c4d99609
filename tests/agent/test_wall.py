"""A turn's wall time stands still while a person is asked."""

import asyncio

import pytest

from tightloop.agent.wall import Wall

FAR_S = 1000.0


async def test_held_time_does_not_count() -> None:
    """What is held twice goes on after the second release, with the time that was left."""
    wall = Wall()
    async with wall.limited(FAR_S):
        assert wall._timeout is not None
        wall.hold(True)
        wall.hold(True)
        assert wall._timeout.when() is None
        wall.hold(False)
        assert wall._timeout.when() is None
        wall.hold(False)
        when = wall._timeout.when()
        assert when is not None
        assert when - asyncio.get_running_loop().time() <= FAR_S
        wall.hold(False)
        assert wall._timeout.when() == when
    wall.hold(True)
    wall.hold(False)


async def test_it_ends_the_block() -> None:
    wall = Wall()
    with pytest.raises(TimeoutError):
        async with wall.limited(0.0):
            await asyncio.Event().wait()
    async with wall.limited(FAR_S):
        await asyncio.sleep(0)
