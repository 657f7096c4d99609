"""A bell that another thread may ring."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from tightloop.engine.doorbell import Doorbell, open_eventfd, open_pipe

Ends = Callable[[], tuple[int, int]]
BOTH = pytest.mark.parametrize("open_ends", [open_eventfd, open_pipe])


@BOTH
async def test_each_ring_is_answered_on_the_loop(open_ends: Ends) -> None:
    """From a thread, one after the other."""
    answered = asyncio.Event()
    threads: list[threading.Thread] = []

    def answer() -> None:
        threads.append(threading.current_thread())
        answered.set()

    bell = Doorbell(asyncio.get_running_loop(), answer, open_ends=open_ends)
    for _ in range(3):
        answered.clear()
        ringing = threading.Thread(target=bell.ring)
        ringing.start()
        await answered.wait()
        ringing.join()
    bell.close()
    assert threads == [threading.current_thread()] * 3


@BOTH
async def test_rings_before_an_answer_share_it_and_never_block(open_ends: Ends) -> None:
    """Also when there are more than a pipe can hold."""
    answers: list[None] = []
    answered = asyncio.Event()

    def answer() -> None:
        answers.append(None)
        answered.set()

    bell = Doorbell(asyncio.get_running_loop(), answer, open_ends=open_ends)
    for _ in range(20_000):
        bell.ring()
    await answered.wait()
    bell.close()
    assert len(answers) == 1


@BOTH
async def test_a_closed_bell_answers_no_more(open_ends: Ends) -> None:
    """Not even what was rung before; closing twice is fine."""
    answers: list[None] = []
    bell = Doorbell(asyncio.get_running_loop(), lambda: answers.append(None), open_ends=open_ends)
    bell.ring()
    bell.close()
    bell.close()
    await asyncio.sleep(0)
    assert not answers
