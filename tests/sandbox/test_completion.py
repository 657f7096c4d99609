"""What is begun is ended."""

import asyncio

import pytest

from tightloop.sandbox.completion import to_its_end


async def test_it_is_the_result_or_the_error() -> None:
    """As without it."""

    async def failing() -> None:
        raise ValueError("x")

    assert await to_its_end(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ValueError, match="x"):
        await to_its_end(failing())


@pytest.mark.parametrize("fails", [False, True])
async def test_cancellations_wait_for_the_work(fails: bool) -> None:
    """However many; then they count, whatever the work came to."""
    may_end, has_ended = asyncio.Event(), False

    async def work() -> None:
        nonlocal has_ended
        await may_end.wait()
        has_ended = True
        if fails:
            raise ValueError("x")

    waiting = asyncio.create_task(to_its_end(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert has_ended
