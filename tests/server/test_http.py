"""The HTTP endpoints, with a plain HTTP client."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tightloop.engine.scripted import (
    Hold,
    Script,
    ScriptedEngine,
    echo_script,
    in_turn,
    text_answer,
)
from tightloop.governance.keys import KeyRing
from tightloop.protocol.deltas import Finished, FinishReason, TextDelta, Usage
from tightloop.server.access import Access
from tightloop.server.app import MAX_BODY_BYTES, Server
from tightloop.server.endpoint import Endpoint
from tightloop.server.store import Row, Store, StoreError


class Client:
    """A server and an HTTP client to it."""

    def __init__(self, server: Server, endpoint: Endpoint, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.endpoint = endpoint
        self.http = http
        self.root = server.url.removesuffix("/v1")

    async def call(
        self, method: str, path: str, *, status: int = 200, **options: Any
    ) -> dict[str, Any]:
        async with self.http.request(method, self.root + path, **options) as response:
            body = await response.read()
            assert response.status == status, body[:300]
            assert response.content_type == "application/json"
            decoded: dict[str, Any] = orjson.loads(body)
            return decoded

    async def create(self, *, status: int = 200, **fields: Any) -> dict[str, Any]:
        body = {"model": "scripted", "input": "hi", **fields}
        return await self.call("POST", "/v1/responses", status=status, json=body)

    async def lines(self, **fields: Any) -> list[bytes]:
        body = {"model": "scripted", "input": "hi", "stream": True, **fields}
        async with self.http.post(self.root + "/v1/responses", json=body) as response:
            assert response.status == 200
            assert response.content_type == "text/event-stream"
            return (await response.read()).split(b"\n\n")


@asynccontextmanager
async def client(
    script: Script = echo_script, *keys: str, store: Store | None = None
) -> AsyncIterator[Client]:
    endpoint = Endpoint(ScriptedEngine(script), store)
    access = Access(KeyRing(keys), "127.0.0.1")
    server = Server(endpoint, access, host="127.0.0.1", port=0)
    await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield Client(server, endpoint, http)
    finally:
        await server.stop(grace_s=0)


async def test_a_response_as_one_object() -> None:
    """All strict keys, the text, and it can be fetched again."""
    async with client() as c:
        made = await c.create(metadata={"a": "b"})
        assert made["status"] == "completed"
        assert made["output"][0]["content"][0]["text"] == "echo: hi"
        assert made["metadata"] == {"a": "b"}
        assert await c.call("GET", f"/v1/responses/{made['id']}") == made


async def test_a_response_as_server_sent_events() -> None:
    """Each frame has an event line equal to the type; the last frame is [DONE]."""
    async with client() as c:
        *frames, done, rest = await c.lines()
        assert (done, rest) == (b"data: [DONE]", b"")
        for frame in frames:
            event, data = frame.split(b"\n")
            kind = orjson.loads(data.removeprefix(b"data: "))["type"].encode()
            assert event == b"event: " + kind
        assert frames[-1].startswith(b"event: response.completed")


async def test_http_1_0_gets_its_events_without_chunks() -> None:
    """Old proxies speak it; the body ends with the connection."""
    async with client() as c:
        host, port = c.root.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = b'{"model":"scripted","input":"hi","stream":true}'
        head = b"POST /v1/responses HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.0 200")
        assert answer.split(b"\r\n\r\n", 1)[1].startswith(b"event: response.created\ndata: {")
        assert answer.endswith(b"data: [DONE]\n\n")


async def test_continuation_needs_a_stored_parent() -> None:
    """Over HTTP there is no connection that could remember."""
    async with client() as c:
        first = await c.create(store=True)
        second = await c.create(store=True, previous_response_id=first["id"])
        assert second["previous_response_id"] == first["id"]
        unstored = await c.create(store=False)
        refused = await c.create(status=400, previous_response_id=unstored["id"])
        assert refused["error"]["code"] == "previous_response_not_found"
        assert refused["error"]["param"] == "previous_response_id"


async def test_a_deleted_response_is_gone() -> None:
    """Neither fetched nor continued nor deleted again."""
    async with client() as c:
        made = await c.create()
        path = f"/v1/responses/{made['id']}"
        deleted = await c.call("DELETE", path)
        assert deleted == {"id": made["id"], "object": "response.deleted", "deleted": True}
        for method in ("GET", "DELETE"):
            error = (await c.call(method, path, status=404))["error"]
            assert error["code"] == "response_not_found"
        await c.create(status=400, previous_response_id=made["id"])


async def test_a_refusal_is_json_even_when_a_stream_was_asked_for() -> None:
    """Nothing of a stream has been sent by then."""
    async with client() as c:
        refused = await c.create(status=400, stream=True, model="unknown")
        assert refused["error"]["code"] == "model_not_found"
        assert "scripted" in refused["error"]["message"]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("context_length_exceeded", 400),
        ("rate_limit_exceeded", 429),
        ("server_error", 500),
        ("invalid_api_key", 502),
        ("server_is_overloaded", 429),
    ],
)
async def test_a_failed_response_is_an_http_error_without_a_stream(code: str, status: int) -> None:
    """The caller's fault or ours, by the engine's code."""
    failed = Finished(FinishReason.ERROR, Usage(), None, code, "no")
    async with client(in_turn([[failed]])) as c:
        error = (await c.create(status=status))["error"]
        assert (error["code"], error["message"]) == (code, "no")


async def test_a_failure_in_a_stream_is_its_last_event() -> None:
    """The status line has long been sent."""
    failed = Finished(FinishReason.ERROR, Usage(), None, "server_error", "no")
    async with client(in_turn([[TextDelta("x"), failed]])) as c:
        frames = await c.lines()
        assert frames[-3].startswith(b"event: response.failed")
        assert frames[-2] == b"data: [DONE]"


@pytest.mark.parametrize("stream", [False, True])
async def test_hanging_up_stops_the_engine(stream: bool) -> None:
    """Nobody will read it."""
    hold = Hold()
    async with client(in_turn([[TextDelta("x"), hold]])) as c:
        task = asyncio.create_task(c.create(stream=stream))
        await hold.reached.wait()
        task.cancel()
        await asyncio.wait([task])
        await c.endpoint.drained(30)
        assert not c.endpoint.backstage.running


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"not json", None),
        (b"\x00\xff\xfe", None),
        (b"[]", None),
        (b"{}", "model"),
        (b'{"model":1}', "model"),
        (b'{"model":"scripted","input":[{"type":"message"}]}', "input[0].role"),
        (b'{"model":"scripted","input":[1]}', "input[0]"),
        (b'{"model":"scripted","input":"x","tools":[{"type":"function"}]}', "tools[0].name"),
        (b'{"model":"scripted","input":"x","max_output_tokens":1}', "max_output_tokens"),
        (b"[" * 200_000, None),
    ],
)
async def test_a_bad_body_is_a_400_that_names_the_field(body: bytes, param: str | None) -> None:
    """Bounded, and the server goes on."""
    async with client() as c:
        refused = await c.call("POST", "/v1/responses", status=400, data=body)
        assert refused["error"]["param"] == param
        assert len(orjson.dumps(refused)) < 3000
        await c.create()


async def test_a_body_beyond_the_limit_is_a_413() -> None:
    """Told in the API's words."""
    async with client() as c:
        headers = {"Content-Length": str(MAX_BODY_BYTES + 1)}

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(MAX_BODY_BYTES // (1 << 20) + 1):
                yield b" " * (1 << 20)

        refused = await c.call("POST", "/v1/responses", status=413, data=endless(), headers=headers)
        assert refused["error"]["code"] == "request_too_large"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/" + "x" * 5000, 404, "not_found"),
        ("PUT", "/v1/responses", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/responses", 400, "websocket_upgrade_required"),
        ("GET", "/v1/responses/resp_unknown", 404, "response_not_found"),
    ],
)
async def test_errors_of_the_router_are_json(
    method: str, path: str, status: int, code: str
) -> None:
    """One shape for every error, of bounded size."""
    async with client() as c:
        error = (await c.call(method, path, status=status))["error"]
        assert error["code"] == code
        assert len(error["message"]) < 400


async def test_models_and_health() -> None:
    """Both lists name the engine's model; health needs no key."""
    async with client(echo_script, "secret") as c:
        assert await c.call("GET", "/health") == {"status": "ok"}
        refused = await c.call("GET", "/v1/models", status=401)
        assert refused["error"]["code"] == "invalid_api_key"
        headers = {"Authorization": "Bearer secret"}
        listing = await c.call("GET", "/v1/models", headers=headers)
        assert listing["data"][0]["id"] == listing["models"][0]["slug"] == "scripted"


async def test_pages_of_other_sites_are_refused() -> None:
    """A browser on this machine reaches loopback too."""
    async with client() as c:
        headers = {"Origin": "https://evil.example"}
        refused = await c.call("GET", "/v1/models", status=403, headers=headers)
        assert refused["error"]["code"] == "origin_not_allowed"


async def test_unexpected_errors_tell_the_kind_only() -> None:
    """No text of ours that might hold a secret; the log has the rest."""

    def broken(_request: object) -> list[TextDelta]:
        raise AssertionError("secret detail")

    async with client() as c:
        c.endpoint.engine.models = broken  # type: ignore[method-assign,assignment]
        refused = await c.create(status=500)
        assert refused["error"]["message"] == "internal error: TypeError"


async def test_two_requests_on_one_connection() -> None:
    """The end of a stream leaves the connection usable."""
    async with client(lambda _request: text_answer("a b c")) as c:
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(connector=connector) as http:
            one = Client(c.server, c.endpoint, http)
            for _ in range(3):
                await one.lines()
            assert len(connector._conns) == 1


async def test_a_response_that_cannot_be_stored_is_a_500(tmp_path: Path) -> None:
    """Without a stream too."""
    async with client(store=FullStore(tmp_path / "db")) as c:
        refused = await c.create(status=500)
        assert refused["error"]["code"] == "store_failed"
        await c.create(store=False)


class FullStore(Store):
    """Has no room."""

    async def save(self, rows: Sequence[Row], **options: Any) -> None:
        raise StoreError("no space left")


async def test_a_body_that_cannot_be_unpacked_is_the_callers_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And nothing to log a traceback for."""
    async with client() as c:
        headers = {"Content-Encoding": "gzip"}
        refused = await c.call("POST", "/v1/responses", status=400, data=b"abcd", headers=headers)
        assert refused["error"]["code"] == "invalid_body"
        await c.create()
    assert not caplog.records


async def test_a_peer_that_does_not_speak_http_is_told_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And leaves no traceback in the log."""
    async with client() as c:
        host, port = c.root.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()
    assert not caplog.records
