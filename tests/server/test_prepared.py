"""What happens before the engine begins ends in one ``Finished``, whatever it is."""

import asyncio
from collections.abc import Sequence

import pytest

from tightloop.engine.interface import EngineError, GenerationRequest
from tightloop.engine.scripted import ScriptedEngine
from tightloop.protocol.deltas import Delta, Finished, FinishReason
from tightloop.protocol.items import user_message
from tightloop.server.prepared import PreparedGeneration

REQUEST = GenerationRequest("r", "scripted", None, (user_message("hi"),))


class Collected:
    """The deltas of one generation."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.over = asyncio.Event()

    def sink(self, deltas: Sequence[Delta]) -> None:
        self.deltas += deltas
        if isinstance(deltas[-1], Finished):
            self.over.set()

    async def end(self) -> Finished:
        await self.over.wait()
        assert sum(isinstance(delta, Finished) for delta in self.deltas) == 1
        last = self.deltas[-1]
        assert isinstance(last, Finished)
        return last


async def test_the_engine_gets_what_was_prepared() -> None:
    engine, collected = ScriptedEngine(), Collected()
    changed = GenerationRequest("r", "scripted", None, (user_message("changed"),))

    async def prepare(_request: GenerationRequest) -> GenerationRequest:
        return changed

    PreparedGeneration(engine, REQUEST, collected.sink, prepare)
    assert (await collected.end()).reason is FinishReason.STOP
    assert list(engine.requests) == [changed]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EngineError("no", code="invalid_grammar"), "invalid_grammar"),
        (KeyError("x"), "server_error"),
    ],
)
async def test_a_failure_is_an_end_like_any_other(error: Exception, code: str) -> None:
    collected = Collected()

    async def prepare(_request: GenerationRequest) -> None:
        raise error

    PreparedGeneration(ScriptedEngine(), REQUEST, collected.sink, prepare)
    assert (await collected.end()).error_code == code


async def test_it_can_be_cancelled_before_the_engine_began() -> None:
    collected, never = Collected(), asyncio.Event()

    async def prepare(_request: GenerationRequest) -> None:
        await never.wait()

    PreparedGeneration(ScriptedEngine(), REQUEST, collected.sink, prepare).cancel()
    assert (await collected.end()).reason is FinishReason.CANCELLED
