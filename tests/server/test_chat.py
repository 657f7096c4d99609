"""``POST /v1/chat/completions``, with a plain HTTP client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest

from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.interface import Engine, Sampling
from tightloop.engine.scripted import (
    Hold,
    ScriptedEngine,
    Step,
    call_answer,
    in_turn,
    text_answer,
)
from tightloop.engine.scripted_backend import ScriptedBackend, replying
from tightloop.engine.sequence_pool import SequencePool
from tightloop.engine.token_engine import TokenEngine
from tightloop.governance.keys import KeyRing
from tightloop.protocol.chat_stream import CONTEXT_FULL
from tightloop.protocol.deltas import Finished, FinishReason, TextDelta, Usage
from tightloop.protocol.items import FunctionCall, FunctionCallOutput, Message, TextPart
from tightloop.protocol.tools import FunctionTool
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint

HI = {"role": "user", "content": "hi"}
SHELL = {"type": "function", "function": {"name": "shell"}}


class Client:
    """A server that answers chats, and an HTTP client to it."""

    def __init__(self, url: str, endpoint: Endpoint, http: aiohttp.ClientSession) -> None:
        self.url = f"{url}/chat/completions"
        self.endpoint = endpoint
        self.http = http

    def post(self, *messages: dict[str, Any], **fields: Any) -> Any:
        body = {"model": "scripted", "messages": list(messages) or [HI], **fields}
        return self.http.post(self.url, json=body)

    async def create(
        self, *messages: dict[str, Any], status: int = 200, **fields: Any
    ) -> dict[str, Any]:
        async with self.post(*messages, **fields) as response:
            body = await response.read()
            assert response.status == status, body[:300]
            decoded: dict[str, Any] = orjson.loads(body)
            return decoded

    async def frames(self, *messages: dict[str, Any], **fields: Any) -> list[bytes]:
        """The data of each server-sent event; nothing but data may be in the stream."""
        async with self.post(*messages, stream=True, **fields) as response:
            assert response.status == 200
            assert response.content_type == "text/event-stream"
            *frames, rest = (await response.read()).split(b"\n\n")
            assert rest == b""
            assert all(frame.startswith(b"data: ") for frame in frames)
            return [frame.removeprefix(b"data: ") for frame in frames]


@asynccontextmanager
async def client(
    engine: Engine | None = None, *keys: str, heartbeat_s: float = 5.0
) -> AsyncIterator[Client]:
    endpoint = Endpoint(engine or ScriptedEngine(), heartbeat_s=heartbeat_s)
    access = Access(KeyRing(keys), "127.0.0.1")
    server = Server(endpoint, access, host="127.0.0.1", port=0)
    await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield Client(server.url, endpoint, http)
    finally:
        await server.stop(grace_s=0)


async def test_an_answer_as_one_object() -> None:
    async with client() as c:
        made = await c.create()
    assert made["object"] == "chat.completion"
    assert made["id"].startswith("chatcmpl-")
    [choice] = made["choices"]
    assert choice["message"]["content"] == "echo: hi"
    assert choice["finish_reason"] == "stop"


async def test_an_answer_as_chunks_ends_with_done() -> None:
    async with client() as c:
        *frames, done = await c.frames()
    assert done == b"[DONE]"
    chunks = [orjson.loads(frame) for frame in frames]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == "echo: hi"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_usage_is_the_last_chunk_when_asked_for() -> None:
    async with client() as c:
        *_, usage, _done = await c.frames(stream_options={"include_usage": True})
        assert orjson.loads(usage)["choices"] == []
        assert orjson.loads(usage)["usage"]["completion_tokens"] == 2
        *_, end, _done = await c.frames()
        assert orjson.loads(end)["choices"] != []


async def test_the_engine_cannot_tell_the_dialect() -> None:
    """It gets items, tools and sampling as from any other request."""
    engine = ScriptedEngine()
    async with client(engine) as c:
        await c.create(
            {"role": "system", "content": "be brief"},
            HI,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "shell", "arguments": ""}}
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "x"},
            tools=[SHELL],
            tool_choice="required",
            max_tokens=5,
            temperature=0.5,
            stop="END",
            seed=1,
            reasoning_effort="low",
            parallel_tool_calls=False,
        )
    [request] = engine.requests
    assert request.items == (
        Message("system", (TextPart("input_text", "be brief"),)),
        Message("user", (TextPart("input_text", "hi"),)),
        FunctionCall("a", "shell", ""),
        FunctionCallOutput("a", "x"),
    )
    assert request.tools == (FunctionTool("shell"),)
    assert request.tool_choice == "required"
    assert request.sampling == Sampling(0.5, None, 1, ("END",))
    assert request.max_output_tokens == 5
    assert request.reasoning_effort == "low"
    assert not request.parallel_tool_calls


async def test_a_tool_call_is_called_by_its_id_in_the_next_turn() -> None:
    answers = [call_answer("shell", {"cmd": "ls"}, "call_7"), text_answer("done")]
    async with client(ScriptedEngine(in_turn(answers))) as c:
        first = await c.create(tools=[SHELL])
        [choice] = first["choices"]
        assert choice["finish_reason"] == "tool_calls"
        function = {"name": "shell", "arguments": '{"cmd":"ls"}'}
        expected = {"id": "call_7", "type": "function", "function": function}
        assert choice["message"]["tool_calls"] == [expected]
        output = {"role": "tool", "tool_call_id": "call_7", "content": "a.py"}
        second = await c.create(HI, choice["message"], output, tools=[SHELL])
    assert second["choices"][0]["message"]["content"] == "done"


@pytest.mark.parametrize(
    ("param", "code", "fields"),
    [
        ("n", "unsupported_parameter", {"n": 2}),
        ("model", "model_not_found", {"model": "other"}),
        ("messages[0].tool_call_id", "invalid_request", {
            "messages": [{"role": "tool", "tool_call_id": "a", "content": "x"}]
        }),
    ],
)  # fmt: skip
async def test_a_refusal_is_an_http_error_also_for_a_stream(
    param: str, code: str, fields: dict[str, Any]
) -> None:
    async with client() as c:
        for stream in (False, True):
            error = (await c.create(status=400, stream=stream, **fields))["error"]
            assert (error["param"], error["code"]) == (param, code)
            assert error["type"] == "invalid_request_error"


FAILED = Finished(
    FinishReason.ERROR, Usage(), error_code="upstream_error", error_message="it is gone"
)


async def test_a_failure_is_an_http_error_or_the_last_event() -> None:
    answer: list[Step] = [TextDelta("half"), FAILED]
    async with client(ScriptedEngine(in_turn([answer, answer]))) as c:
        error = (await c.create(status=502))["error"]
        assert (error["code"], error["message"]) == ("upstream_error", "it is gone")
        *_, event, done = await c.frames()
    assert orjson.loads(event)["error"]["message"] == "it is gone"
    assert done == b"[DONE]"


async def test_a_full_context_is_said_so_that_clients_understand() -> None:
    """In the same words whether the answer is a stream or not."""
    backend = ScriptedBackend(replying(b"fine"), context_window=16)
    async with client(TokenEngine(lambda: backend, ChatFamily, name="scripted")) as c:
        error = (await c.create(status=400))["error"]
        *_, event, _done = await c.frames()
    assert error["code"] == "context_length_exceeded"
    assert error["message"].startswith(CONTEXT_FULL)
    assert orjson.loads(event)["error"] == error


async def test_a_client_that_hangs_up_stops_its_answer() -> None:
    """Nobody could come back for it: the answer has no id that can be asked for."""
    hold = Hold()
    engine = ScriptedEngine(in_turn([[TextDelta("a"), hold, TextDelta("b")]]))
    async with client(engine) as c:
        async with c.post(stream=True) as response:
            await hold.reached.wait()
            response.close()
        await c.endpoint.backstage.drained()
        assert not hold.release.is_set()


async def test_silence_is_filled_with_chunks_that_say_nothing() -> None:
    hold = Hold()
    engine = ScriptedEngine(in_turn([[TextDelta("a"), hold, TextDelta("b")]]))
    async with client(engine, heartbeat_s=0.01) as c, c.post(stream=True) as response:
        lines = [line.removeprefix(b"data: ").strip() async for line in released(response, hold)]
    deltas = [orjson.loads(line)["choices"][0]["delta"] for line in lines if line[:1] == b"{"]
    assert {} in deltas[:-1]
    assert "".join(delta.get("content", "") for delta in deltas) == "ab"


async def released(response: aiohttp.ClientResponse, hold: Hold) -> AsyncIterator[bytes]:
    """The lines of the stream; the engine goes on after the first chunk that says nothing."""
    async for line in response.content:
        if b'"delta":{}' in line:
            hold.release.set()
        yield line


async def test_a_request_for_timing_changes_nothing_here() -> None:
    """Chunks have no place for it."""
    async with client() as c:
        c.http.headers["X-Tightloop-Timing"] = "1"
        frames = await c.frames()
    assert not any(b"timing" in frame for frame in frames)


async def test_nothing_is_stored() -> None:
    async with client() as c:
        made = await c.create(store=True)
        response_id = made["id"].replace("chatcmpl-", "resp_")
        url = c.url.replace("chat/completions", f"responses/{response_id}")
        async with c.http.get(url) as response:
            assert response.status == 404


async def test_a_key_is_needed_where_there_are_keys() -> None:
    async with client(None, "secret") as c:
        await c.create(status=401)
        c.http.headers["Authorization"] = "Bearer secret"
        await c.create()


async def test_a_conversation_goes_on_from_what_is_computed() -> None:
    """The client sends everything again; the engine evaluates only what is new in it."""
    backend = ScriptedBackend(replying(b"fine"))
    async with client(TokenEngine(lambda: backend, ChatFamily, name="scripted")) as c:
        system = {"role": "system", "content": "be brief"}
        first = await c.create(system, HI)
        message = first["choices"][0]["message"]
        second = await c.create(system, HI, message, {"role": "user", "content": "and now"})
        other = await c.create({"role": "system", "content": "talk much"}, HI)
    assert message["content"] == "fine"
    assert cached(first) == 0
    spoken = len("fine")  # a token a byte
    assert cached(second) == first["usage"]["prompt_tokens"] + spoken
    assert cached(other) < first["usage"]["prompt_tokens"] / 2


def cached(made: dict[str, Any]) -> int:
    details = made["usage"]["prompt_tokens_details"]
    tokens: int = details["cached_tokens"]
    return tokens


async def test_a_tool_turn_goes_on_from_what_is_computed() -> None:
    reply = b'<tool_call>\n{"name": "shell", "arguments": {"cmd": "ls"}}\n</tool_call>'
    backend = ScriptedBackend(replying(reply))
    async with client(TokenEngine(lambda: backend, ChatFamily, name="scripted")) as c:
        first = await c.create(tools=[SHELL])
        message = first["choices"][0]["message"]
        [call] = message["tool_calls"]
        output = {"role": "tool", "tool_call_id": call["id"], "content": "a.py"}
        second = await c.create(HI, message, output, tools=[SHELL])
    assert cached(second) >= first["usage"]["prompt_tokens"]


async def test_content_in_parts_is_heard() -> None:
    async with client() as c:
        made = await c.create(HI, {"role": "user", "content": [{"type": "text", "text": "you"}]})
    assert made["choices"][0]["message"]["content"] == "echo: you"


def eager(pool: SequencePool) -> ChatFamily:
    """A family to which longer steps cost nothing, whatever the machine is doing."""
    return ChatFamily(pool, step_costs={1: 1.0, 8: 1.0})


@pytest.mark.parametrize("content", ["0123456789", [{"type": "text", "text": "0123456789"}]])
async def test_a_prediction_makes_no_difference_but_in_usage(content: object) -> None:
    """Its place is found again after what is different: the last 9 is right, too."""
    backend = ScriptedBackend(replying(b"01234AB789"))
    prediction = {"type": "content", "content": content}
    async with client(TokenEngine(lambda: backend, eager, name="scripted")) as c:
        made = await c.create(prediction=prediction)
        plain = await c.create()
    assert made["choices"] == plain["choices"]
    details = made["usage"]["completion_tokens_details"]
    assert details["accepted_prediction_tokens"] == 5
    assert details["rejected_prediction_tokens"] == 3
    assert made["usage"]["completion_tokens"] == plain["usage"]["completion_tokens"] == 10
