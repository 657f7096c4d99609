"""A remote host as an engine, against a small real server scripted per case."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from msgspec import Raw

from tests.engine.collecting import Answer, ask, request, start
from tightloop.engine.interface import EngineError, Node, Sampling
from tightloop.engine.remote import HostTimes, RemoteEngine, RemoteOptions, host_times
from tightloop.engine.remote.catalog import FRESH_S
from tightloop.protocol.deltas import FinishReason, ToolCallDone, ToolCallStarted
from tightloop.protocol.items import Message, OpaquePart, TextPart
from tightloop.protocol.output_format import OutputFormat
from tightloop.protocol.requests import CustomTool, FunctionTool
from tightloop.trace.clock import ManualClock

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 8},
    },
}


def call_chunk(text: str, **first: str) -> dict[str, Any]:
    call: dict[str, Any] = {"index": 0, "function": {"arguments": text}}
    if first:
        call |= {"id": first["id"], "type": "function"}
        call["function"]["name"] = first["name"]
    return chunk(tool_calls=[call])


def stream(*chunks: Any, done: bool = True) -> Reply:
    """Answers with these chunks as events; bytes are sent as they are."""

    async def reply(http: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(http)
        for part in chunks:
            raw = part if isinstance(part, bytes) else json.dumps(part).encode()
            await response.write(raw if isinstance(part, bytes) else b"data: " + raw + b"\n\n")
        if done:
            await response.write(b"data: [DONE]\n\n")
        return response

    return reply


def refusal(status: int, message: str, **headers: str) -> Reply:
    async def reply(_http: web.Request) -> web.StreamResponse:
        body = {"error": {"message": message, "type": "x", "code": None}}
        return web.json_response(body, status=status, headers=headers)

    return reply


class Host:
    """The scripted host: what it was asked, and over which connections."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.ports: list[int] = []
        self.warmed = asyncio.Event()
        self.listing: Any = {"data": []}
        self.encodings: list[str | None] = []

    async def chat(self, http: web.Request) -> web.StreamResponse:
        self.encodings.append(http.headers.get("Content-Encoding"))
        self.bodies.append(await http.json())
        self.headers.append(dict(http.headers))
        self.ports.append(self._port(http))
        return await self.reply(http)

    async def models(self, http: web.Request) -> web.Response:
        self.ports.append(self._port(http))
        self.warmed.set()
        if isinstance(self.listing, int):
            return web.Response(status=self.listing)
        return web.json_response(self.listing)

    def _port(self, http: web.Request) -> int:
        assert http.transport is not None
        port: int = http.transport.get_extra_info("peername")[1]
        return port


@asynccontextmanager
async def serving(
    reply: Reply, *, model: str = "big", listing: Any = None, **options: Any
) -> AsyncIterator[tuple[RemoteEngine, Host]]:
    """``options`` are those of ``RemoteOptions``."""
    host = Host(reply)
    host.listing = {"data": []} if listing is None else listing
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v1/chat/completions", host.chat)
    app.router.add_get("/v1/models", host.models)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    engine = RemoteEngine(
        model,
        f"http://127.0.0.1:{port}/v1",
        options=RemoteOptions(**options),
        api_key_env="TIGHTLOOP_TEST_KEY",
    )
    try:
        await engine.start()
        await host.warmed.wait()
        yield engine, host
    finally:
        await engine.close()
        await runner.cleanup()


async def answered(reply: Reply) -> Answer:
    async with serving(reply) as (engine, _):
        return await ask(engine, request("hi"))


async def test_what_is_demanded_is_passed_on() -> None:
    """The host must make it hold; tools that were ruled out are not offered."""
    asked = replace(
        request("hi", tools=(FunctionTool("run", strict=True),), tool_choice="required"),
        output_format=OutputFormat("json_object"),
        parallel_tool_calls=False,
        reasoning_effort="low",
    )
    async with serving(stream(chunk("stop", content="{}"), USAGE)) as (engine, host):
        answer = await ask(engine, asked)
        assert engine.models()[0].reads_images
    (body,) = host.bodies
    assert body["response_format"] == {"type": "json_object"}
    assert body["parallel_tool_calls"] is False
    assert body["reasoning_effort"] == "low"
    assert body["tool_choice"] == "required"
    assert body["tools"][0]["function"]["strict"] is True
    assert answer.finished.usage.cached_tokens == 8


async def test_images_are_the_hosts_business_and_files_are_refused() -> None:
    image = OpaquePart("input_image", Raw(b'{"type":"input_image","image_url":"data:x"}'))
    odd = OpaquePart("input_file", Raw(b'{"type":"input_file","file_id":"f"}'))
    async with serving(stream(chunk("stop", content="ok"))) as (engine, host):
        await ask(engine, request([Message("user", (image,))]))
        refused = await ask(engine, request([Message("user", (odd,))], name="r2"))
    shown = [{"type": "image_url", "image_url": {"url": "data:x"}}]
    assert [body["messages"][0]["content"] for body in host.bodies] == [shown]
    assert refused.finished.error_code == "unsupported_content"


async def test_what_cannot_be_demanded_is_not_passed_on() -> None:
    twins = (FunctionTool("find", namespace="a"), FunctionTool("find", namespace="b"))
    async with serving(stream(chunk("stop", content="ok"))) as (engine, host):
        answers = [
            await ask(engine, request("hi", tools=twins)),
            await ask(engine, request("hi", tool_choice="required", name="r2")),
        ]
    assert [answer.finished.error_code for answer in answers] == ["invalid_value"] * 2
    assert host.bodies == []


async def test_text_with_usage() -> None:
    answer = await answered(
        stream(
            chunk(role="assistant", content=""),
            chunk(content="Good"),
            chunk(content=" day"),
            chunk("stop"),
            USAGE,
        )
    )
    assert answer.text == "Good day"
    done = answer.finished
    assert done.reason is FinishReason.STOP
    assert (done.usage.input_tokens, done.usage.cached_tokens) == (10, 8)
    assert done.usage.output_tokens == 5
    assert done.timing is not None
    assert done.timing.num_prefill_tokens == 2
    assert done.timing.decode_ns == 0
    assert done.timing.submitted_ns <= done.timing.first_delta_ns <= done.timing.finished_ns


async def test_reasoning_and_streamed_tool_calls() -> None:
    reply = stream(
        chunk(reasoning_content="hm"),
        call_chunk("", id="call_7", name="run"),
        call_chunk('{"cmd"'),
        call_chunk(': "ls"}'),
        chunk("tool_calls"),
    )
    async with serving(reply) as (engine, host):
        answer = await ask(engine, request("hi", tools=(FunctionTool("run"),)))
    assert answer.reasoning == "hm"
    assert answer.calls == [("run", '{"cmd": "ls"}')]
    assert ToolCallStarted("call_7", "run") in answer.deltas
    assert answer.finished.reason is FinishReason.TOOL_CALLS
    assert host.bodies[0]["tools"][0]["function"]["name"] == "run"
    assert host.bodies[0]["stream_options"] == {"include_usage": True}


async def test_a_complete_call_is_done_before_the_stream_ends() -> None:
    """So that the tool starts while the host still talks."""
    gate = asyncio.Event()

    async def reply(http: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(http)
        first = json.dumps(call_chunk("{}", id="c", name="run")).encode()
        await response.write(b"data: " + first + b"\n\n")
        await gate.wait()
        await response.write(b"data: " + json.dumps(chunk("tool_calls")).encode() + b"\n\n")
        return response

    async with serving(reply) as (engine, _):
        answer = start(engine, request())
        await answer.first.wait()
        assert ToolCallDone() in answer.deltas
        gate.set()
        await answer.wait()
    assert answer.finished.reason is FinishReason.TOOL_CALLS


async def test_custom_tools_come_back_as_free_text() -> None:
    reply = stream(call_chunk('{"input": "a\\nb"}', id="c", name="patch"), chunk("tool_calls"))
    async with serving(reply) as (engine, _):
        answer = await ask(engine, request("hi", tools=(CustomTool("patch"),)))
    assert answer.calls == [("patch", "a\nb")]


async def test_sampling_limits_and_key_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIGHTLOOP_TEST_KEY", "k-1")
    async with serving(stream(chunk("stop"))) as (engine, host):
        sampling = Sampling(temperature=0.5, top_p=0.9, seed=3, stop=("END",))
        await ask(engine, request("hi", sampling=sampling, max_output_tokens=7))
        monkeypatch.delenv("TIGHTLOOP_TEST_KEY")
        await ask(engine, request("hi"))
    first, second = host.bodies
    assert [first[key] for key in ("temperature", "top_p", "seed", "stop", "max_tokens")] == [
        0.5, 0.9, 3, ["END"], 7,
    ]  # fmt: skip
    assert "temperature" not in second
    assert host.headers[0]["Authorization"] == "Bearer k-1"
    assert "Authorization" not in host.headers[1]


async def test_warm_connections_serve_everything() -> None:
    """Two at most: the next request may start while the last stream's end is being read."""
    async with serving(stream(chunk(content="a"), chunk("stop"), USAGE)) as (engine, host):
        for _ in range(6):
            await ask(engine, request())
    assert len(host.ports) == 7
    assert len(set(host.ports)) <= 2


async def test_the_host_s_own_times_are_used() -> None:
    last = chunk("stop") | {
        "usage": {"prompt_tokens": 54, "completion_tokens": 8},
        "time_info": {"queue_time": 0.1, "prompt_time": 1e-5, "completion_time": 2e-5},
    }
    done = (await answered(stream(chunk(content="x"), last))).finished
    assert done.timing is not None
    assert done.timing.decode_ns == 20_000
    assert done.timing.num_decode_steps == 8
    assert done.timing.finished_ns - done.timing.prefilled_ns == 20_000
    assert done.timing.prefilled_ns - done.timing.started_ns == 10_000


def test_times_are_found_where_hosts_put_them() -> None:
    times = {"queue_time": 1, "prompt_time": 2, "completion_time": 3}
    assert host_times({"time_info": times}) == HostTimes(1, 2, 3)
    assert host_times({"usage": times}) == HostTimes(1, 2, 3)
    assert host_times({"x_groq": {"usage": times}}) == HostTimes(1, 2, 3)
    assert host_times({"time_info": {"completion_time": None}}) == HostTimes()
    assert host_times({"usage": {"prompt_tokens": 1}}) is None
    odd = {"queue_time": -1, "prompt_time": float("inf"), "completion_time": float("nan")}
    assert host_times({"time_info": odd}) == HostTimes()
    odder = {"queue_time": 10**400, "prompt_time": "2", "completion_time": 1e300}
    assert host_times({"time_info": odder}) == HostTimes()


@pytest.mark.parametrize(
    ("reply", "code", "text"),
    [
        (refusal(401, "bad key"), "invalid_api_key", "set a valid key in TIGHTLOOP_TEST_KEY"),
        (refusal(403, "no"), "permission_denied", "answered 403: no"),
        (refusal(404, "gone"), "model_not_found", "models are retired often"),
        (
            refusal(429, "slow down", **{"Retry-After": "7"}),
            "rate_limit_exceeded",
            "retry after 7 s",
        ),
        (refusal(400, "maximum context length is 8"), "context_length_exceeded", "context length"),
        (refusal(400, "no such field"), "invalid_request", "no such field"),
        (refusal(503, "busy"), "upstream_error", "answered 503: busy"),
    ],
)
async def test_refusals_say_who_why_and_what_to_do(reply: Reply, code: str, text: str) -> None:
    done = (await answered(reply)).finished
    assert done.reason is FinishReason.ERROR
    assert done.error_code == code
    assert done.error_message is not None
    assert "127.0.0.1" in done.error_message
    assert "(model big)" in done.error_message
    assert text in done.error_message


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (stream(chunk(content="a"), done=False), "without a finish reason"),
        (stream(chunk(content="a")), "without a finish reason"),
        (stream(b"data: {nonsense\n\n"), "is not JSON"),
        (stream(b"data: [1]\n\n"), "is not a JSON object"),
        (stream(b"<html>a login page</html>"), "without a finish reason"),
        (
            stream(chunk(content="a"), {"error": {"message": "it broke", "code": "boom"}}),
            "it broke",
        ),
        (stream({"detail": "no such adapter"}), "no such adapter"),
        (stream({"message": "it broke", "code": 500}), "it broke"),
        (stream({"error": "it broke"}), "it broke"),
        (stream(b'event: error\ndata: {"code": 7, "message": "it broke"}\n\n'), "it broke"),
        (stream(b"event: error\ndata: it broke\n\n", chunk("stop")), "it broke"),
        (stream(b'event: error\ndata: ["it broke"]\n\n', chunk("stop")), "it broke"),
        (stream(chunk(content="a"), chunk("abort")), "'abort'"),
        (stream(call_chunk('{"cmd', id="c", name="run"), done=False), "without a finish reason"),
        (stream(call_chunk('{"cmd', id="c", name="run")), "without a finish reason"),
    ],
)
async def test_broken_streams_end_with_an_error(reply: Reply, text: str) -> None:
    answer = await answered(reply)
    done = answer.finished
    assert done.reason is FinishReason.ERROR
    assert done.error_message is not None
    assert text in done.error_message
    assert "(model big)" in done.error_message
    assert ToolCallDone() not in answer.deltas


async def test_what_came_before_a_fault_is_not_lost() -> None:
    """Also when both came from the network at once."""
    first = b"data: " + json.dumps(chunk(content="a")).encode() + b"\n\n"
    for fault in (b"data: {nonsense\n\n", b'event: error\ndata: "no"\n\n'):
        answer = await answered(stream(first + fault))
        assert answer.text == "a"
        assert answer.finished.reason is FinishReason.ERROR


async def test_empty_events_keep_a_stream_alive() -> None:
    answer = await answered(stream(b"data:\n\ndata: \n\n", chunk("stop", content="a")))
    assert (answer.text, answer.finished.reason) == ("a", FinishReason.STOP)


def in_parts(body: object, status: int = 200) -> Reply:
    """Answers with this JSON, sent in two pieces."""

    async def reply(http: web.Request) -> web.StreamResponse:
        raw = json.dumps(body).encode()
        response = web.StreamResponse(
            status=status, headers={"Content-Type": "application/json; charset=utf-8"}
        )
        await response.prepare(http)
        for part in (raw[:5], raw[5:]):
            await response.write(part)
        return response

    return reply


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"error": {"message": "no money", "code": "billing"}}, "billing", "no money"),
        ({"detail": "no money"}, "upstream_error", "no money"),
        ([{"error": {"message": "no money", "code": 402}}], "upstream_error", "no money"),
        ({"message": "no money"}, "upstream_error", "no money"),
        ("no money", "upstream_error", "no money"),
    ],
)
async def test_an_error_with_status_200_as_json(body: object, code: str, message: str) -> None:
    done = (await answered(in_parts(body))).finished
    assert (done.reason, done.error_code) == (FinishReason.ERROR, code)
    assert message in str(done.error_message)


@pytest.mark.parametrize(
    "body", [{"detail": [{"msg": "busy"}]}, {"message": "busy"}, [{"error": "busy"}], "busy"]
)
async def test_a_refusal_of_any_shape_gives_the_hosts_reason(body: object) -> None:
    done = (await answered(in_parts(body, status=503))).finished
    assert "answered 503: busy" in str(done.error_message)


async def test_an_answer_that_is_not_streamed_is_an_answer() -> None:
    """It was taken for an empty one: the text of a whole answer is elsewhere."""
    message = {"role": "assistant", "content": "x" * 100_000}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    answer = await answered(in_parts({"choices": [choice], "usage": USAGE["usage"]}))
    assert answer.text == message["content"]
    assert answer.finished.reason is FinishReason.STOP
    assert answer.finished.usage.output_tokens == 5


async def test_a_connection_cut_in_the_middle() -> None:
    async def reply(http: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(http)
        await response.write(b"data: " + json.dumps(chunk(content="a")).encode() + b"\n\n")
        assert http.transport is not None
        http.transport.abort()
        return response

    answer = await answered(reply)
    assert answer.text == "a"
    assert answer.finished.error_code == "upstream_error"
    assert "the connection to 127.0.0.1" in str(answer.finished.error_message)


async def test_a_kept_connection_that_the_host_closed_is_replaced() -> None:
    count = 0

    async def reply(http: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        if count == 2:  # closed before any byte of the answer
            assert http.transport is not None
            http.transport.abort()
            return web.Response()
        return await stream(chunk(content="ok"), chunk("stop"))(http)

    async with serving(reply) as (engine, _):
        assert (await ask(engine, request())).text == "ok"
        assert (await ask(engine, request())).text == "ok"
    assert count == 3


async def test_cancel_closes_the_stream() -> None:
    closed = asyncio.Event()

    async def reply(http: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(http)
        await response.write(b"data: " + json.dumps(chunk(content="a")).encode() + b"\n\n")
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()
        return response

    async with serving(reply) as (engine, _):
        answer = start(engine, request())
        await answer.first.wait()
        assert answer.generation is not None
        answer.generation.cancel()
        done = await answer.wait()
        await closed.wait()
    assert done.reason is FinishReason.CANCELLED
    assert answer.text == "a"


async def test_cancel_at_once_and_close_while_running() -> None:
    async def never(_http: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with serving(never) as (engine, _):
        early, late = start(engine, request()), start(engine, request())
        assert early.generation is not None
        early.generation.cancel()
        assert (await early.wait()).reason is FinishReason.CANCELLED
        await engine.close()
        assert late.finished.reason is FinishReason.CANCELLED
        after = await ask(engine, request())
    assert after.finished.error_code == "engine_unavailable"


async def test_a_prewarm_is_not_passed_on() -> None:
    async with serving(stream(chunk("stop"))) as (engine, host):
        answer = await ask(engine, request(generate=False))
    assert answer.finished.reason is FinishReason.STOP
    assert host.bodies == []


async def test_a_host_that_cannot_be_reached_is_named() -> None:
    async with serving(stream()) as (engine, _):
        gone = RemoteEngine("m", "http://127.0.0.1:1/v1")
        await gone.start()
        done = (await ask(gone, request())).finished
        await gone.close()
    assert engine.models()[0].description.startswith("big at 127.0.0.1")
    assert done.error_code == "upstream_error"
    assert "127.0.0.1:1 (model m)" in str(done.error_message)


# ---------------------------------------------------------------------- what a turn sends


async def test_a_turn_goes_up_with_its_whole_conversation() -> None:
    """Worded in earlier turns or now, the host sees the same messages."""
    async with serving(stream(chunk(content="ok"), chunk("stop"))) as (engine, host):
        first = request("one", name="r1")
        await ask(engine, first)
        said = Message("assistant", (TextPart("output_text", "ok"),))
        node = Node("r1", None, (*first.items, said))
        second = request("two", name="r2", parent=node, instructions="rules")
        await ask(engine, second)
        await ask(engine, replace(second, response_id="again", instructions=None))
    assert [m["content"] for m in host.bodies[1]["messages"]] == ["rules", "one", "ok", "two"]
    assert [m["content"] for m in host.bodies[2]["messages"]] == ["one", "ok", "two"]
    assert host.bodies[0]["model"] == "big"


async def test_the_host_is_told_which_conversation_it_is() -> None:
    async with serving(stream(chunk("stop")), host_kind="openai") as (engine, host):
        asked = replace(request("hi"), cache_key="s-1", service_tier="flex", prediction="old")
        await ask(engine, replace(asked, max_output_tokens=7))
    (body,) = host.bodies
    assert (body["prompt_cache_key"], body["service_tier"]) == ("s-1", "flex")
    assert body["prediction"] == {"type": "content", "content": "old"}
    assert body["max_completion_tokens"] == 7


async def test_a_host_is_known_by_what_it_lists() -> None:
    listing = {"data": [{"id": "big", "owned_by": "vllm", "max_model_len": 4096}]}
    async with serving(stream(chunk("stop")), listing=listing) as (engine, host):
        await ask(engine, request("one"))
        assert engine.host.kind.name == "vllm"
        assert engine.models()[0].context_window == 4096
        await ask(engine, request("two", name="r2"))
    assert "session_id" in host.bodies[1]


async def test_several_connections_are_warmed() -> None:
    async with serving(stream(chunk("stop")), warm=3) as (engine, host):
        await ask(engine, request())
    assert len(set(host.ports)) >= 3


class Said(logging.Handler):
    """What one logger says; ``news`` is set by it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.news = asyncio.Event()
        self._logger = logging.getLogger(name)

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.news.set()

    def __enter__(self) -> "Said":
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)


async def test_a_host_that_cannot_be_reached_is_named_at_the_start() -> None:
    """Starting is not refused: the host may come up later, and each request tries."""
    with socket.socket() as nobody, Said("tightloop.engine.remote.engine") as said:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        engine = RemoteEngine("big", url)
        await engine.start()
        await said.news.wait()
        await engine.close()
    (text,) = said.texts
    assert text.startswith(f"{url} cannot be reached now, so requests for big will fail")
    assert "refused" in text or "Connect call failed" in text


async def test_a_host_that_answers_is_not_warned_of() -> None:
    """Whatever it thinks of the question."""
    with Said("tightloop.engine.remote.engine") as said:
        async with serving(stream(chunk("stop")), listing=404) as (engine, _):
            await ask(engine, request())
    assert said.texts == []


async def test_a_body_above_a_mebibyte_goes_up_in_pieces() -> None:
    text = "x" * (3 << 20)
    async with serving(stream(chunk("stop"))) as (engine, host):
        assert (await ask(engine, request(text))).finished.reason is FinishReason.STOP
    assert host.bodies[0]["messages"][0]["content"] == text


# ---------------------------------------------------------------------- models of the host

TWO = {"data": [{"id": "small", "context_length": 8}, {"id": "large"}]}


async def test_all_models_of_a_host_are_served() -> None:
    async with serving(stream(chunk("stop")), model="*", listing=TWO) as (engine, host):
        assert [(info.name, info.context_window) for info in engine.models()] == [
            ("small", 8),
            ("large", 0),
        ]
        await ask(engine, replace(request(), model="large"))
        done = (await ask(engine, replace(request(), model="gone"))).finished
    assert [body["model"] for body in host.bodies] == ["large"]
    assert done.error_code == "model_not_found"
    assert "it lists small, large" in str(done.error_message)


@pytest.mark.parametrize(
    ("listing", "complaint"),
    [({"data": []}, "lists no models"), ("nonsense", "lists no models"), (401, "answered 401")],
)
async def test_a_host_that_lists_nothing_is_named(listing: Any, complaint: str) -> None:
    with pytest.raises(EngineError, match=complaint):
        async with serving(stream(chunk("stop")), model="*", listing=listing):
            raise AssertionError("unreachable")


async def test_a_model_that_was_named_works_without_a_list() -> None:
    async with serving(stream(chunk(content="ok"), chunk("stop")), listing=500) as (engine, _):
        assert (await ask(engine, request())).text == "ok"


async def test_an_old_list_is_asked_for_again() -> None:
    clock = ManualClock()
    host = Host(stream(chunk("stop")))
    app = web.Application()
    app.router.add_get("/v1/models", host.models)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    host.listing = {"data": [{"id": "old"}]}
    engine = RemoteEngine("*", url, options=RemoteOptions(warm=0), clock=clock)
    clock.advance_s(1.0)
    await engine.start()
    host.listing = {"data": [{"id": "new"}]}
    host.warmed.clear()
    assert [info.name for info in engine.models()] == ["old"]
    assert not host.warmed.is_set()
    clock.advance_s(FRESH_S + 1)
    engine.models()
    await host.warmed.wait()
    await engine.close()
    await runner.cleanup()


# ---------------------------------------------------------------------- hints


async def test_hints_become_requests_for_one_token_on_demand() -> None:
    """The newest of those that came while one was under way, and never two at a time."""
    gate, asked_for = asyncio.Event(), asyncio.Semaphore(0)

    async def reply(http: web.Request) -> web.StreamResponse:
        asked_for.release()
        await gate.wait()
        return await stream(chunk("stop"))(http)

    async with serving(reply, warms_up=True) as (engine, host):
        first = start(engine, replace(request("a", generate=False), cache_key="s"))
        await asked_for.acquire()
        later = [
            start(engine, replace(request(text, generate=False), cache_key="s", is_open=True))
            for text in ("ab", "abc", "abcd")
        ]
        for answer in later:
            assert (await answer.wait()).reason is FinishReason.STOP
        gate.set()
        assert (await first.wait()).reason is FinishReason.STOP
        assert first.text == ""
    assert [body["messages"][0]["content"] for body in host.bodies] == ["a", "abcd"]
    assert [body["max_tokens"] for body in host.bodies] == [1, 1]


async def test_a_hint_that_is_taken_back_stops_the_host() -> None:
    closed, begun = asyncio.Event(), asyncio.Event()

    async def reply(_http: web.Request) -> web.StreamResponse:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()
        raise AssertionError("unreachable")

    async with serving(reply, warms_up=True) as (engine, host):
        hint = start(engine, request("a", generate=False))
        await begun.wait()
        assert hint.generation is not None
        hint.generation.cancel()
        assert (await hint.wait()).reason is FinishReason.CANCELLED
        await closed.wait()
    assert len(host.bodies) == 1


async def test_a_hint_that_fails_is_no_failure() -> None:
    async with serving(refusal(500, "no"), warms_up=True) as (engine, _):
        assert (await ask(engine, request(generate=False))).finished.reason is FinishReason.STOP


# ---------------------------------------------------------------------- compressed bodies

LARGE = "print('hello, world')\n" * 4000


async def test_compressed_bodies_where_they_are_wanted() -> None:
    async with serving(stream(chunk("stop")), gzip="on") as (engine, host):
        await ask(engine, request(LARGE))
        await ask(engine, request("short", name="r2"))
    assert host.encodings == ["gzip", None]
    assert host.bodies[0]["messages"][0]["content"] == LARGE


async def test_nothing_is_compressed_for_this_machine() -> None:
    async with serving(stream(chunk("stop"))) as (engine, host):
        await ask(engine, request(LARGE))
    assert host.encodings == [None]


KEY = "TIGHTLOOP_TEST_KEY"


async def test_a_key_is_sent_without_the_end_of_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files with a key end in one."""
    monkeypatch.setenv(KEY, "k-123456\r\n")
    async with serving(stream(chunk("stop"))) as (engine, host):
        assert (await ask(engine, request("hi"))).finished.reason is FinishReason.STOP
        assert host.headers[0]["Authorization"] == "Bearer k-123456"


@pytest.mark.parametrize("key", ["k-1\nX-Evil: 1", "k-1\x7f", "ключ"])
async def test_a_key_that_cannot_be_sent_is_an_error(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(stream(chunk("stop"))) as (engine, host):
        monkeypatch.setenv(KEY, key)
        done = (await ask(engine, request("hi"))).finished
        assert (done.reason, done.error_code) == (FinishReason.ERROR, "invalid_api_key")
        assert key not in str(done.error_message)
        assert not host.bodies


@pytest.mark.parametrize(
    "reply",
    [
        refusal(401, "there is no key k-s3cret here"),
        in_parts({"error": {"message": "no key k-s3cret"}}),
        stream({"error": {"message": "no key k-s3cret"}}, done=False),
    ],
)
async def test_a_host_that_repeats_the_key_does_not_tell_clients(
    reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "k-s3cret")
    done = (await answered(reply)).finished
    assert done.reason is FinishReason.ERROR
    assert "k-s3cret" not in str(done.error_message)
    assert "[key]" in str(done.error_message)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_conversations_are_not_sent_where_a_host_points(status: int) -> None:
    async def elsewhere(_http: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": "/v1/chat/completions?again"})

    async with serving(elsewhere) as (engine, host):
        done = (await ask(engine, request("hi"))).finished
        assert done.error_code == "upstream_error"
        assert "redirects are not followed" in str(done.error_message)
        assert len(host.bodies) == 1


async def test_a_fault_of_ours_is_no_cancelled_response(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(stream(chunk("stop"))) as (engine, _host):
        assert engine.api is not None
        monkeypatch.setattr(engine.api, "converse", None)
        done = (await ask(engine, request("hi"))).finished
        assert (done.reason, done.error_code) == (FinishReason.ERROR, "server_error")
