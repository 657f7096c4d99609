"""Runs of ``bench turn`` against endpoints that misbehave in every way the report must tell."""

import asyncio
import base64
import re
from hashlib import sha1
from typing import Any

import pytest

from tests.bench.endpoint import endpoint, models, refusal, response, sse
from tightloop.bench.bugs import BenchError
from tightloop.bench.turn import NUM_WARMUP, Plan, TurnResult, first_model, known, run_turns

WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
SMALL: dict[str, Any] = {"histories": (1_000,), "rounds": 3}


def plan(url: str, **fields: Any) -> Plan:
    return Plan(url=url, model="m", **{**SMALL, **fields})


class Peer:
    """Answers every POST, has no WebSocket; keeps the bodies. ``fail`` numbers requests from 1."""

    def __init__(self, *fail: int, refused: frozenset[str] = frozenset()) -> None:
        self.bodies: list[dict[str, Any]] = []
        self._fail = fail
        self._refused = refused

    def __call__(self, line: str, body: dict[str, Any]) -> bytes:
        if line.startswith("GET"):
            return refusal("426 Upgrade Required", "no_websocket")
        self.bodies.append(body)
        if self._refused & body.keys():
            return refusal("400 Bad Request", "unknown_parameter", "what is that")
        if len(self.bodies) in self._fail:
            return refusal("503 Service Unavailable", "overloaded", "busy")
        return response(number=len(self.bodies))


async def measured(peer: Peer, **fields: Any) -> TurnResult:
    async with endpoint(peer) as url:
        return await run_turns(plan(url, **fields))


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_a_server_timing_header_is_read(api: str) -> None:
    def timed(_line: str, _body: dict[str, Any]) -> bytes:
        message = {"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}
        raw = response() if api == "responses" else sse({"choices": [message]})
        return raw.replace(b"\r\n", b"\r\nServer-Timing: total;dur=12.5\r\n", 1)

    async with endpoint(timed) as url:
        result = await run_turns(plan(url, api=api, variants=("http",)))
    samples = known(result.series[1_000]["http"].samples)
    assert [sample.server_timing for sample in samples] == [{"total": 12.5}] * 3


async def test_no_run_repeats_the_texts_of_another() -> None:
    """The endpoint may still hold those of the run before, and would look faster than it is."""
    sent = []
    for mark in ("one", "two", "two"):
        peer = Peer()
        await measured(peer, variants=("http",), run_mark=mark)
        sent.append([body["input"][-1] for body in peer.bodies[1:]])
    assert not [item for item in sent[0] if item in sent[1]]
    assert sent[1] == sent[2]


async def test_a_refused_upgrade_is_a_finding() -> None:
    """The other ways are measured; each follow-up resends all and one tool output more."""
    peer = Peer()
    result = await measured(peer)
    assert result.skipped == {"ws": "no WebSocket mode (426)"}
    found = result.series[1_000]
    assert set(found) == {"http", "http-new"}
    for series in found.values():
        assert len(known(series.samples)) == 3
    assert result.num_requests == len(peer.bodies) == 2 * (1 + NUM_WARMUP + 3)
    sizes = [sample.num_bytes for sample in known(found["http"].samples)]
    assert sizes[0] + 4096 < sizes[1] < sizes[1] + 4096 < sizes[2]


async def test_a_websocket_that_breaks_at_once_is_a_finding() -> None:
    """As of a gateway that accepts the upgrade and then finds no way on; the others are measured."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if key := re.search(r"(?i)sec-websocket-key: (\S+)", head):
            accept = base64.b64encode(sha1(key[1].encode() + WEBSOCKET_GUID).digest())
            lines = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade"
            writer.write(lines + b"\r\nSec-WebSocket-Accept: %s\r\n\r\n" % accept)
            await reader.read(1)  # the request
            writer.write(b"\x88\x09\x03\xf3no way!")
        else:
            writer.write(response())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        result = await run_turns(plan(url, histories=(1_000, 2_000)))
        with pytest.raises(BenchError, match="no way!"):
            await run_turns(plan(url, variants=("ws",)))
    assert "no way!" in result.skipped["ws"]
    assert result.num_failed == 1
    for found in result.series.values():
        assert set(found) == {"http", "http-new"}
        assert all(len(known(series.samples)) == 3 for series in found.values())


async def test_a_failure_is_counted_and_the_run_goes_on() -> None:
    """The failed turn and the opening of the next conversation are no samples."""
    result = await measured(Peer(5), variants=("http",))
    series = result.series[1_000]["http"]
    assert result.num_failed == 1
    assert not result.is_mostly_failed
    assert [sample is None for sample in series.samples] == [False, True, True]
    assert dict(series.errors) == {"status 503 overloaded: busy": 1}


async def test_mostly_failed() -> None:
    result = await measured(Peer(*range(2, 20)), variants=("http",))
    assert result.is_mostly_failed
    assert known(result.series[1_000]["http"].samples) == []


async def test_fields_that_a_strict_endpoint_refuses_are_left_out() -> None:
    """It is asked once more without them; that is not counted as a failure."""
    peer = Peer(refused=frozenset({"client_metadata", "include"}))
    result = await measured(peer, variants=("http",))
    assert result.num_failed == 0
    assert len(known(result.series[1_000]["http"].samples)) == 3
    assert "client_metadata" in peer.bodies[0]
    assert all("client_metadata" not in body for body in peer.bodies[1:])


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (refusal("401 Unauthorized", "invalid_api_key"), "--api-key-env"),
        (refusal("404 Not Found", "model_not_found", "unknown model 'm'"), "unknown model 'm'"),
        (refusal("404 Not Found", "nothing_here"), "--api chat"),
    ],
)
async def test_a_run_that_cannot_work_stops_at_once(answer: bytes, text: str) -> None:
    """With what to do, after the first request."""
    seen = []

    def choose(line: str, _body: dict[str, Any]) -> bytes:
        seen.append(line)
        return answer

    async with endpoint(choose) as url:
        with pytest.raises(BenchError) as caught:
            await run_turns(plan(url, variants=("http",)))
    assert text in str(caught.value)
    assert seen == ["POST /v1/responses"]


async def test_a_key_that_the_upgrade_refuses_is_an_error() -> None:
    async with endpoint(lambda *_: refusal("401 Unauthorized", "x")) as url:
        with pytest.raises(BenchError, match=r"401.*--api-key-env"):
            await run_turns(plan(url, variants=("ws",)))


async def test_only_a_websocket_that_is_not_there() -> None:
    async with endpoint(Peer()) as url:
        with pytest.raises(BenchError, match=r"none of these ways: ws: no WebSocket mode \(426\)"):
            await run_turns(plan(url, variants=("ws",)))


async def test_the_first_listed_model_is_taken() -> None:
    async with endpoint(lambda *_: models("one", "two")) as url:
        assert await first_model(url, None) == "one"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (models(), "lists no model; name one with --model"),
        (refusal("401 Unauthorized", "x"), "refused the key with status 401"),
        (refusal("404 Not Found", "x"), "lists no model"),
        (b"", "is the server running?"),
    ],
)
async def test_no_list_of_models(answer: bytes, text: str) -> None:
    async with endpoint(lambda *_: answer) as url:
        with pytest.raises(BenchError) as caught:
            await first_model(url, "key")
    assert text in str(caught.value)


def test_the_estimate_counts_the_context_of_every_turn() -> None:
    """A host charges for the context of each request, however it got there."""
    one = plan("http://h/v1", variants=("ws",), rounds=1, max_output_tokens=76)
    assert one.num_requests == 4
    assert one.num_input_tokens == 4 * (1_000 + 200) + (0 + 1 + 2 + 3) * (1024 + 76)
