"""The upstream speaks the protocols as our own parsers and the raw client read them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest

from benchmarks.peers.bodies import Bodies, create
from benchmarks.peers.client import HttpClient, WebSocketClient, checked
from benchmarks.peers.pacer import Pacer
from benchmarks.peers.reply import BadReply, HttpReply
from benchmarks.peers.stub import Connection, Pace, State, command, listen
from tightloop.bench.chat_line import ChatLine
from tightloop.client.http import HttpTransport
from tightloop.client.transport import Transport
from tightloop.client.websocket import WebSocketTransport
from tightloop.protocol.accumulator import Accumulator
from tightloop.trace.clock import now_ns

FAST = 1e6
"""Tokens a second: paced, and over at once."""


@dataclass(frozen=True, slots=True)
class Up:
    state: State
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@pytest.fixture(params=[FAST, 0.0], ids=["paced", "unpaced"])
async def up(request: pytest.FixtureRequest) -> AsyncIterator[Up]:
    """A stub in this process; ``HTTP`` only."""
    state = State(Pacer(asyncio.get_running_loop()), Pace(request.param, 40))
    listening = await listen(state, None)
    yield Up(state, listening.ports["http"])
    listening.close()
    state.pacer.close()


async def ask(transport: Transport) -> Accumulator:
    response = Accumulator()
    asked: dict[str, Any] = {"model": "stub", "input": "hello", "store": False}
    async with aclosing(transport.stream(asked)) as events:
        async for event in events:
            response.feed(event)
    await transport.close()
    return response


@pytest.mark.parametrize("way", [HttpTransport, WebSocketTransport])
async def test_our_client_reads_whole_responses(up: Up, way: Any) -> None:
    """Every token is a reading of the clock that is not in the future."""
    response = await ask(way(up.url))
    (item,) = response.output_items
    stamps = [int(stamp) for stamp in item.text.split()]  # type: ignore[union-attr]
    assert response.status == "completed"
    assert len(stamps) == 40
    assert sorted(stamps) == stamps
    assert stamps[-1] < now_ns()
    assert response.usage is not None
    assert response.usage.output_tokens == 40


async def test_our_bench_reads_chat(up: Up) -> None:
    line = ChatLine(up.url, None, reuse_connection=True)
    for _ in range(2):  # the second on the same connection
        answer = await line.ask({"model": "stub", "messages": []})
        assert len(answer.message["content"].split()) == 40
        assert answer.trip.output_tokens == 40
    await line.close()


async def test_the_raw_client_reads_the_same(up: Up) -> None:
    """Over both HTTP APIs, kept and new connections, large bodies."""
    bodies = Bodies("10k", "stub")
    for path, body in (
        ("/v1/chat/completions", bodies.chat()),
        ("/v1/responses", bodies.responses()),
    ):
        for is_kept in (True, False):
            client = HttpClient(up.port, path, is_kept=is_kept)
            for _ in range(2):
                sent_ns, reply = await asyncio.to_thread(client.ask, client.ready(body))
                found = checked(reply, 40)
                assert sent_ns < found[0].stamp_ns <= found[0].arrived_ns
            client.close()
            assert client.num_reconnected == 0


async def test_the_raw_client_follows_on_a_websocket(up: Up) -> None:
    made = Bodies("10k", "stub")
    bodies = [create(body) for body in (made.opening(), made.following("resp_1"))]
    silent = create(made.opening(generate=False))
    client = await asyncio.to_thread(WebSocketClient, up.port, "/v1/responses")
    for body in bodies:
        _, reply = await asyncio.to_thread(client.ask, client.ready(body))
        assert len(checked(reply, 40)) == 40
    assert checked((await asyncio.to_thread(client.ask, client.ready(silent)))[1], 0) == []
    client.close()
    assert command(up.state, "counts") == {
        "websocket requests": 3,
        "websocket bytes": sum(map(len, (*bodies, silent))),
    }


async def test_what_is_missing_is_named(up: Up) -> None:
    client = HttpClient(up.port, "/v1/responses")
    _, reply = await asyncio.to_thread(client.ask, client.ready(b"{}"))
    with pytest.raises(BadReply, match="40 of 41 tokens came"):
        checked(reply, 41)
    client.close()


async def test_what_is_no_answer_is_json(up: Up) -> None:
    """Health, models, and the rendering that a router asks for, which is no stream."""
    for path, word in (
        ("/health", "ok"),
        ("/v1/models", "stub"),
        ("/v1/chat/completions/render", "token_ids"),
    ):
        client = HttpClient(up.port, path)
        _, reply = await asyncio.to_thread(client.ask, client.ready(b"{}"))
        assert word in reply.text()
        client.close()


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False


async def test_a_body_in_chunks_and_bytes_is_read_to_its_end() -> None:
    """One byte at a time, two requests in a row; the answers come after the last byte of each."""
    state = State(Pacer(asyncio.get_running_loop()), Pace(0.0, 1))
    connection, wire = Connection(state), Wire()
    connection.connection_made(wire)
    request = b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    request += b"3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"
    for number in range(1, 3):
        wire.written.clear()
        for byte in request:
            assert wire.written == b""
            connection.data_received(bytes([byte]))
        reply = HttpReply()
        assert reply.feed(bytes(wire.written), 1)
        assert state.counts == {
            "/v1/chat/completions requests": number,
            "/v1/chat/completions bytes": 19 * number,
        }
    state.pacer.close()


async def test_commands_set_the_pace_and_others_are_named() -> None:
    state = State(Pacer(asyncio.get_running_loop()))
    assert command(state, "pace 65 7") == {"rate": 65.0, "num": 7}
    assert state.pace == Pace(65.0, 7)
    with pytest.raises(ValueError, match="not 'go on'"):
        command(state, "go on")
    state.pacer.close()


async def test_deadlines_are_kept_in_order_whoever_adds_them() -> None:
    """A call may come again, and may add others that are due before it."""
    pacer = Pacer(asyncio.get_running_loop())
    order: list[str] = []
    done = asyncio.Event()
    start_ns = now_ns()

    def twice(_time_ns: int) -> int | None:
        order.append("twice")
        if len(order) == 1:
            pacer.at(start_ns + 1000, once)
            return start_ns + 2000
        done.set()
        return None

    def once(_time_ns: int) -> int | None:
        order.append("once")
        return None

    pacer.at(start_ns, twice)
    await done.wait()
    assert order == ["twice", "once", "twice"]
    pacer.close()
