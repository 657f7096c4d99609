"""Responses that need more cells together than there are: all of them get to their end."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.engine.collecting import Answer, ask, request, start
from tests.engine.gguf_fixture import write_gguf
from tightloop.engine.crowd import Crowd
from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.scripted_backend import ScriptedBackend, replying
from tightloop.engine.token_engine import TokenEngine
from tightloop.protocol.deltas import Delta, FinishReason


def test_the_oldest_is_the_one_that_came_first() -> None:
    crowd = Crowd()
    first, second = crowd.enter(), crowd.enter()
    assert (first.is_oldest, second.is_oldest) == (True, False)
    first.leave()
    assert second.is_oldest


def test_one_that_waits_holds_nothing_until_somebody_leaves() -> None:
    crowd = Crowd()
    first, second, third = crowd.enter(), crowd.enter(), crowd.enter()
    waiting = third.wait()
    next(waiting)
    assert not first.is_alone
    second.holds = False
    assert first.is_alone
    next(waiting)
    second.leave()
    with pytest.raises(StopIteration):
        next(waiting)
    assert third.holds


async def test_neighbours_fill_the_context_and_none_fails() -> None:
    """Each alone fits, all together are four times too many; every text is whole."""
    text = "".join(f"{n}," for n in range(150))
    backend = ScriptedBackend(replying(text.encode()), context_window=1000, num_cells=1000)
    engine = TokenEngine(lambda: backend, ChatFamily, name="test")
    await engine.start()
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(engine, request(f"number {n}"))) for n in range(6)]
    assert [text] * 6 == [task.result().text for task in asked]
    usages = {task.result().finished.usage.output_tokens for task in asked}
    assert usages == {len(text)}
    await engine.close()


class Far(Answer):
    """Notices when 450 characters have come: the younger ones have no room by then."""

    def __init__(self) -> None:
        super().__init__()
        self.is_far = asyncio.Event()

    def __call__(self, batch: Sequence[Delta]) -> None:
        super().__call__(batch)
        if len(self.text) > 450:
            self.is_far.set()


async def test_a_parked_response_can_be_cancelled() -> None:
    backend = ScriptedBackend(replying(b"x" * 600), context_window=1000, num_cells=1000)
    engine = TokenEngine(lambda: backend, ChatFamily, name="test")
    await engine.start()
    first = Far()
    engine.submit(request("a"), first)
    second, third = start(engine, request("b")), start(engine, request("c"))
    await first.is_far.wait()
    assert second.generation is not None
    second.generation.cancel()
    assert (await second.wait()).reason is FinishReason.CANCELLED
    await first.wait()
    await third.wait()
    assert first.text == third.text == "x" * 600
    await engine.close()


async def test_a_parked_response_goes_on_with_the_same_words(tmp_path: Path) -> None:
    """On real llama.cpp: what each says in the crowd is what it says alone."""
    model = write_gguf(tmp_path / "tiny.gguf", num_context=512)
    questions = [request(f"question {n}", max_output_tokens=200) for n in range(5)]
    engine = TokenEngine(
        lambda: LlamaCppBackend(model, num_context=512, num_sequences=8), ChatFamily, name="t"
    )
    await engine.start()
    alone = [(await ask(engine, question)).text for question in questions]
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(engine, question)) for question in questions]
    answers = [task.result() for task in asked]
    assert all(answer.finished.reason is not FinishReason.ERROR for answer in answers)
    # Batch kernels round differently from single steps, so a near-tie may fall the other way.
    same = [left[:40] == right.text[:40] for left, right in zip(alone, answers, strict=True)]
    assert all(same)
    await engine.close()
