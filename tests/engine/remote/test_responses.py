"""Responses over HTTP against a host whose stream is written by hand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.engine.collecting import Answer, ask, request
from tightloop.engine.interface import Sampling
from tightloop.engine.remote import RemoteEngine, RemoteOptions
from tightloop.engine.remote.call import HostTimes, timing_event_times
from tightloop.engine.remote.hosts import HOST_KINDS
from tightloop.engine.remote.responses import needs_chat
from tightloop.protocol.deltas import FinishReason
from tightloop.protocol.requests import FunctionTool


def sse(**event: Any) -> bytes:
    return b"data: " + orjson.dumps(event) + b"\n\n"


DELTA = sse(type="response.output_text.delta", output_index=0, delta="a")
COMPLETED = sse(type="response.completed", response={"id": "r"})
DONE = b"data: [DONE]\n\n"


@asynccontextmanager
async def engine(
    *pieces: bytes, status: int = 200
) -> AsyncIterator[tuple[RemoteEngine, list[dict[str, Any]]]]:
    """An engine on a host that answers with these pieces, and the bodies it was sent."""
    bodies: list[dict[str, Any]] = []

    async def answer(http: web.Request) -> web.StreamResponse:
        bodies.append(await http.json())
        response = web.StreamResponse(status=status)
        await response.prepare(http)
        for piece in pieces:
            await response.write(piece)
        return response

    app = web.Application()
    app.router.add_post("/v1/responses", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    made = RemoteEngine(
        "m", url, options=RemoteOptions(api="responses", warm=0), api_key_env="TIGHTLOOP_TEST_KEY"
    )
    await made.start()
    try:
        yield made, bodies
    finally:
        await made.close()
        await runner.cleanup()


async def answered(*pieces: bytes, status: int = 200) -> Answer:
    async with engine(*pieces, status=status) as (made, _):
        return await ask(made, request("hi"))


async def test_an_answer_with_everything_that_may_stand_around_it() -> None:
    answer = await answered(b": ping\n\n", DELTA, b"data:\n\n", COMPLETED, DONE)
    assert (answer.text, answer.finished.reason) == ("a", FinishReason.STOP)


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ((DELTA,), "ended before its response did"),
        ((DELTA, DONE), "ended before its response did"),
        ((DELTA, b"data: nonsense\n\n"), "is not an event"),
        ((DELTA, b"data: [1]\n\n"), "is not an event"),
        ((DELTA, sse(type="response.output_text.delta", output_index=0)), "has no delta"),
        ((DELTA, sse(type="error", error={"message": "it broke"})), "it broke"),
    ],
)
async def test_broken_streams_end_with_an_error(pieces: tuple[bytes, ...], text: str) -> None:
    """What came before the fault is part of the answer."""
    answer = await answered(*pieces)
    assert answer.text == "a"
    assert answer.finished.error_code == "upstream_error"
    assert text in str(answer.finished.error_message)
    assert "(model m)" in str(answer.finished.error_message)


async def test_a_refusal_says_who_and_what_to_do() -> None:
    done = (await answered(b'{"error": {"message": "bad key"}}', status=401)).finished
    assert done.error_code == "invalid_api_key"
    assert "answered 401: bad key; set a valid key in TIGHTLOOP_TEST_KEY" in str(done.error_message)


async def test_what_stays_the_same_stands_in_front() -> None:
    """So that compressing it once is enough; and nothing is stored there."""
    async with engine(COMPLETED) as (made, bodies):
        await ask(made, request("hi", instructions="rules", tools=(FunctionTool("run"),)))
    assert list(bodies[0])[:5] == ["model", "stream", "instructions", "tools", "input"]
    assert bodies[0]["store"] is False


def test_what_responses_cannot_say() -> None:
    other, ours = HOST_KINDS["other"], HOST_KINDS["tightloop"]
    seeded = request(sampling=Sampling(seed=1))
    assert [needs_chat(seeded, other), needs_chat(seeded, ours)] == [True, False]
    assert needs_chat(request(sampling=Sampling(stop=("x",))), ours)
    assert needs_chat(request(max_output_tokens=15), ours)
    assert not needs_chat(request(max_output_tokens=16), other)


def test_times_of_a_timing_event() -> None:
    timing = {"queue_s": 1.0, "prefill_s": 2, "decode_s": 3.0, "server_s": 9.0}
    assert timing_event_times(timing) == HostTimes(1.0, 2.0, 3.0)
    assert timing_event_times({"decode_s": "soon"}) == HostTimes()
