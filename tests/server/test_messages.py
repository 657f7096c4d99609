"""The Messages endpoints over HTTP, with a plain client and clients' own kinds of request."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest

from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.interface import Engine
from tightloop.engine.scripted import (
    Hold,
    ScriptedEngine,
    Step,
    call_answer,
    echo_script,
    in_turn,
    text_answer,
)
from tightloop.engine.scripted_backend import ScriptedBackend, replying
from tightloop.engine.token_engine import TokenEngine
from tightloop.governance.keys import KeyRing
from tightloop.protocol import sse
from tightloop.protocol.deltas import Finished, FinishReason, ReasoningDelta, TextDelta, Usage
from tightloop.protocol.items import FunctionCall, FunctionCallOutput, Message
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint

BASH = {"name": "Bash", "description": "runs", "input_schema": {"type": "object"}}
HI = [{"role": "user", "content": "hi"}]
Event = dict[str, Any]


class Client:
    """A server with one engine, and requests to it."""

    def __init__(self, server: Server, endpoint: Endpoint, http: aiohttp.ClientSession) -> None:
        self.endpoint = endpoint
        self.http = http
        self.root = server.url.removesuffix("/v1")

    async def post(
        self, path: str = "/v1/messages?beta=true", *, status: int = 200, **fields: Any
    ) -> Event:
        body = {"model": "scripted", "max_tokens": 1000, "messages": HI, **fields}
        headers = {"X-Claude-Code-Session-Id": "s-1", "anthropic-version": "2023-06-01"}
        async with self.http.post(self.root + path, json=body, headers=headers) as response:
            answer = await response.read()
            assert (status, "application/json") == (response.status, response.content_type), answer
            decoded: Event = orjson.loads(answer)
            return decoded

    @asynccontextmanager
    async def stream(self, **fields: Any) -> AsyncIterator[AsyncIterator[Event]]:
        body = {"model": "scripted", "max_tokens": 1000, "messages": HI, "stream": True, **fields}
        async with self.http.post(self.root + "/v1/messages?beta=true", json=body) as response:
            assert (response.status, response.content_type) == (200, "text/event-stream")
            yield _events(response)

    async def events(self, **fields: Any) -> list[Event]:
        async with self.stream(**fields) as events:
            return [event async for event in events]


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    decoder = sse.SseDecoder()
    async for chunk in response.content.iter_any():
        for frame in decoder.feed(chunk):
            event: Event = orjson.loads(frame.data)
            assert event["type"] == frame.event
            yield event


@asynccontextmanager
async def client(engine: Engine, *keys: str, heartbeat_s: float = 5.0) -> AsyncIterator[Client]:
    endpoint = Endpoint(engine, heartbeat_s=heartbeat_s)
    server = Server(endpoint, Access(KeyRing(keys), "127.0.0.1"), host="127.0.0.1", port=0)
    await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield Client(server, endpoint, http)
    finally:
        await server.stop(grace_s=0)


def scripted(*answers: Sequence[Step]) -> ScriptedEngine:
    return ScriptedEngine(in_turn(answers) if answers else echo_script)


async def test_a_message_as_one_object() -> None:
    """With every field that the SDKs call required."""
    async with client(scripted()) as c:
        message = await c.post()
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": [{"type": "text", "text": "echo: hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 0,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 2,
        },
    }


async def test_a_message_as_events() -> None:
    """And nothing after the last one: there is no [DONE] here."""
    async with client(scripted(text_answer("one two"))) as c:
        events = await c.events()
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_a_turn_of_tools() -> None:
    """The call goes out, its result comes back, and the engine sees the conversation whole."""
    engine = scripted(
        [*text_answer("Look."), *call_answer("Bash", {"command": "ls"}, "call_a")],
        text_answer("Done."),
    )
    async with client(engine) as c:
        first = await c.post(tools=[BASH])
        assert first["stop_reason"] == "tool_use"
        assert first["content"][1] == {
            "type": "tool_use",
            "id": "call_a",
            "name": "Bash",
            "input": {"command": "ls"},
        }
        result = {"type": "tool_result", "tool_use_id": "call_a", "content": "a.py"}
        second = await c.post(
            tools=[BASH],
            messages=[
                *HI,
                {"role": "assistant", "content": first["content"]},
                {"role": "user", "content": [result]},
            ],
        )
    assert second["content"] == [{"type": "text", "text": "Done."}]
    kinds = [type(item) for item in engine.requests[-1].context()]
    assert kinds == [Message, Message, FunctionCall, FunctionCallOutput]
    assert [FunctionCallOutput("call_a", "a.py")] == list(engine.requests[-1].items)


async def test_thinking_only_for_those_who_ask() -> None:
    answer: list[Step] = [ReasoningDelta("plan"), TextDelta("ok")]
    async with client(scripted(answer, answer)) as c:
        shown = await c.post(thinking={"type": "adaptive"})
        hidden = await c.post()
    assert [block["type"] for block in shown["content"]] == ["thinking", "text"]
    assert [block["type"] for block in hidden["content"]] == ["text"]


async def test_a_prewarm_answers_without_content() -> None:
    """``max_tokens`` 0; the engine was asked only to read."""
    engine = scripted()
    async with client(engine) as c:
        message = await c.post(max_tokens=0)
    assert (message["content"], message["stop_reason"]) == ([], "max_tokens")
    assert [request.generate for request in engine.requests] == [False]


async def test_a_ping_in_silence() -> None:
    """Sent while the engine reads a long prompt."""
    hold = Hold()
    async with (
        client(scripted([hold, *text_answer("ok")]), heartbeat_s=0.001) as c,
        c.stream() as events,
    ):
        seen = [(await anext(events))["type"], (await anext(events))["type"]]
        hold.release.set()
        seen += [event["type"] async for event in events]
    assert (seen[:2], seen[-1]) == (["message_start", "ping"], "message_stop")


async def test_a_failure_in_the_middle_is_an_error_event() -> None:
    failed = Finished(FinishReason.ERROR, Usage(), None, "server_is_overloaded", "full")
    async with client(scripted([TextDelta("a"), failed], [failed])) as c:
        events = await c.events()
        refused = await c.post(status=529)
    error = {"type": "overloaded_error", "message": "full", "code": "server_is_overloaded"}
    assert events[-1] == {"type": "error", "error": error} == refused


@pytest.mark.parametrize(
    ("fields", "status", "kind", "param"),
    [
        ({"model": "claude"}, 404, "not_found_error", "model"),
        ({"messages": []}, 400, "invalid_request_error", "messages"),
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            400,
            "invalid_request_error",
            "messages[0].content[0].text",
        ),
    ],
)
async def test_a_refusal_names_type_and_field(
    fields: dict[str, Any], status: int, kind: str, param: str
) -> None:
    """Before any event, streaming or not."""
    async with client(scripted()) as c:
        for stream in (True, False):
            refused = await c.post(status=status, stream=stream, **fields)
            assert ("error", kind, param) == (
                refused["type"],
                refused["error"]["type"],
                refused["error"]["param"],
            )


async def test_refusals_of_the_server_itself_are_in_the_same_words() -> None:
    """Wrong method, wrong path, no key, no JSON; and other paths keep the words of theirs."""
    async with client(scripted(), "k") as c:
        key = {"x-api-key": "k"}
        expected: tuple[tuple[str, str, dict[str, str], bytes, int, str], ...] = (
            ("GET", "/v1/messages", key, b"", 405, "invalid_request_error"),
            ("POST", "/v1/messages/batches", key, b"{}", 404, "not_found_error"),
            ("POST", "/v1/messages", {}, b"{}", 401, "authentication_error"),
            ("POST", "/v1/messages", key, b"{", 400, "invalid_request_error"),
        )
        for method, path, headers, body, status, kind in expected:
            url = c.root + path
            async with c.http.request(method, url, headers=headers, data=body) as response:
                refused = await response.json()
                assert (response.status, refused["error"]["type"]) == (status, kind)
                assert refused["type"] == "error"
        async with c.http.get(c.root + "/v1/models") as response:
            assert "type" not in await response.json()


async def test_the_root_answers_a_probe() -> None:
    """Without a key: it says nothing but that a server is there."""
    async with client(scripted(), "k") as c:
        for method in ("HEAD", "GET"):
            async with c.http.request(method, c.root + "/") as response:
                assert response.status == 200


async def test_tokens_are_counted() -> None:
    """More for more; and ``max_tokens`` is not asked for."""
    async with client(scripted()) as c:
        path = "/v1/messages/count_tokens?beta=true"
        short = await c.post(path, max_tokens=None)
        long = await c.post(path, system="word " * 200, tools=[BASH])
        assert list(short) == ["input_tokens"]
        assert 0 < short["input_tokens"] < long["input_tokens"]
        refused = await c.post(path, model="x", status=404)
    assert refused["error"]["type"] == "not_found_error"


async def test_a_client_that_hangs_up_stops_its_answer() -> None:
    """It has no id that anybody could come back with."""
    hold = Hold()
    engine = scripted([TextDelta("a"), hold])
    async with client(engine) as c:
        async with c.stream() as events:
            assert (await anext(events))["type"] == "message_start"
            await hold.reached.wait()
        async with asyncio.timeout(10):
            await c.endpoint.backstage.drained()


def token_engine(reply: bytes) -> TokenEngine:
    return engine_over(ScriptedBackend(replying(reply), context_window=1 << 14, num_cells=1 << 16))


def engine_over(backend: ScriptedBackend) -> TokenEngine:
    return TokenEngine(lambda: backend, ChatFamily, name="scripted")


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_prewarm_reads_is_warm_for_the_next_request(stream: bool) -> None:
    """It reads on after its answer has ended, however that was sent."""
    backend = ScriptedBackend(replying(b"ok"), hold=True)
    system = "Be good. " * 20
    async with client(engine_over(backend)) as c:
        if stream:
            await c.events(max_tokens=0, system=system)
        else:
            await c.post(max_tokens=0, system=system)
        await asyncio.to_thread(backend.held.wait)
        backend.release.set()
        usage = (await c.post(system=system))["usage"]
    assert usage["cache_read_input_tokens"] > len(system)


async def test_a_stop_string_ends_the_text_and_is_named() -> None:
    """Through a token engine, where it lies across tokens."""
    async with client(token_engine(b"one END two")) as c:
        message = await c.post(stop_sequences=["never", "END"])
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")
    assert message["content"] == [{"type": "text", "text": "one "}]


async def test_the_second_turn_finds_the_first_one_warm() -> None:
    """Text and parallel calls sent back render to the prompt they came from, token for token.

    The client moves its cache mark, writes the same text as a string and as blocks, and puts a line
    that differs in every request in front: none of that may cost the prefix.
    """
    calls = b"\n".join(  # as models write them
        b'<tool_call>\n{"name": "Bash", "arguments": {"command": "%b", "timeout": 5}}\n</tool_call>'
        % word
        for word in (b"ls", b"pwd")
    )
    async with client(token_engine(b"Let me look.\n" + calls)) as c:

        def system(nonce: str) -> list[dict[str, Any]]:
            header = f"x-anthropic-billing-header: cc_version=2; cch={nonce};"
            return [{"type": "text", "text": header}, {"type": "text", "text": "Be good. " * 20}]

        counted = await c.post("/v1/messages/count_tokens", system=system("0"), tools=[BASH])
        first = await c.post(system=system("a"), tools=[BASH])
        usage = first["usage"]
        assert [block["type"] for block in first["content"]] == ["text", "tool_use", "tool_use"]
        assert usage["cache_read_input_tokens"] == 0
        assert counted["input_tokens"] == usage["input_tokens"]
        results = [
            {"type": "tool_result", "tool_use_id": block["id"], "content": "out"}
            for block in first["content"][1:]
        ]
        marked = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
        history = [
            {"role": "user", "content": [marked]},
            {"role": "assistant", "content": first["content"]},
            {"role": "user", "content": results},
        ]
        second = (await c.post(system=system("b"), tools=[BASH], messages=history))["usage"]
    whole_first_turn = usage["input_tokens"] + usage["output_tokens"]
    assert (
        second["cache_read_input_tokens"] >= whole_first_turn - 1
    )  # the last token was only sampled
    assert second["input_tokens"] > 0
