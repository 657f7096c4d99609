"""Nothing holds back what was written: not the kernel, not the event loop."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from tightloop.client.http import HttpTransport
from tightloop.client.websocket import WebSocketTransport
from tightloop.engine.interface import GenerationRequest, Sink
from tightloop.engine.scripted import Hold, ScriptedEngine, ScriptedGeneration, in_turn
from tightloop.governance.keys import KeyRing
from tightloop.protocol.deltas import Finished, FinishReason, TextDelta, Usage
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint

PATIENCE_S = 20.0


@asynccontextmanager
async def serving(engine: ScriptedEngine) -> AsyncIterator[Server]:
    access = Access(KeyRing(), "127.0.0.1")
    server = Server(Endpoint(engine), access, host="127.0.0.1", port=0)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(grace_s=0)


def connections() -> Iterator[tuple[Any, int]]:
    """Every TCP connection of this process, either end: its name, and whether Nagle's is off."""
    for entry in os.listdir("/proc/self/fd"):
        try:
            found = socket.socket(fileno=os.dup(int(entry)))
        except OSError:  # no socket, or the listing's own descriptor
            continue
        with found:
            is_tcp = found.family in (socket.AF_INET, socket.AF_INET6)
            if not is_tcp or found.type != socket.SOCK_STREAM:
                continue
            if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                flag = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                yield (found.getsockname(), found.getpeername()), flag


@pytest.mark.parametrize("make", [HttpTransport, WebSocketTransport])
async def test_no_connection_waits_for_acknowledgements(
    make: Callable[[str], HttpTransport | WebSocketTransport],
) -> None:
    """Nagle's algorithm is off at both ends: with delayed acknowledgements it costs 40 ms a turn."""
    hold = Hold()
    async with serving(ScriptedEngine(in_turn([[TextDelta("a"), hold]]))) as server:
        before = {name for name, _ in connections()}
        client = make(server.url)
        flags: dict[Any, int] = {}
        try:
            async for event in client.stream({"model": "scripted", "input": "hi"}):
                if event["type"] == "response.output_text.delta":
                    flags = dict(connections())
                    hold.release.set()
        finally:
            await client.close()
    assert len(flags.keys() - before) == 2
    assert all(flags[name] for name in flags.keys() - before)


class BusyEngine(ScriptedEngine):
    """Says one word when told to, and does not let go of the loop until somebody has read it."""

    def __init__(self) -> None:
        super().__init__()
        self.has_been_read = threading.Event()
        self.was_read_in_time = False
        self._sink: Sink | None = None

    def submit(self, request: GenerationRequest, sink: Sink) -> ScriptedGeneration:
        self._sink = sink
        return ScriptedGeneration(asyncio.get_running_loop().create_task(asyncio.sleep(0)))

    def speak(self) -> None:
        assert self._sink is not None
        self._sink([TextDelta("first")])
        self.was_read_in_time = self.has_been_read.wait(PATIENCE_S)
        self._sink([Finished(FinishReason.STOP, Usage())])


def read_until(peer: socket.socket, wanted: bytes) -> None:
    data = b""
    while wanted not in data:
        piece = peer.recv(1 << 16)
        assert piece, data[-300:]
        data += piece


def ask(server: Server, opening: bytes, body: bytes, started: Callable[[], Any]) -> socket.socket:
    """On a thread: send the request and read its beginning, then call ``started``."""
    host, port = server.url.removeprefix("http://").removesuffix("/v1").split(":")
    peer = socket.create_connection((host, int(port)), PATIENCE_S)
    peer.sendall(opening)
    if b"Upgrade" in opening:
        read_until(peer, b"\r\n\r\n")
    peer.sendall(body)
    read_until(peer, b"response.in_progress")
    started()
    read_until(peer, b'"delta":"first"')
    return peer


REQUEST = {"model": "scripted", "input": "hi", "stream": True, "store": False}


def over_http() -> tuple[bytes, bytes]:
    body = orjson.dumps(REQUEST)
    head = b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head, body


def over_websocket() -> tuple[bytes, bytes]:
    frame = orjson.dumps({"type": "response.create", **REQUEST})
    head = (
        b"GET /v1/responses HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert len(frame) < 126
    return head, bytes((0x81, 0x80 | len(frame), 0, 0, 0, 0)) + frame


@pytest.mark.parametrize("transport", [over_http, over_websocket])
async def test_the_first_token_leaves_before_anything_else_runs(
    transport: Callable[[], tuple[bytes, bytes]],
) -> None:
    """The loop is kept busy from the moment the engine spoke until the client has read it."""
    engine = BusyEngine()
    async with serving(engine) as server:
        loop = asyncio.get_running_loop()

        def started() -> None:
            loop.call_soon_threadsafe(engine.speak)

        def client() -> None:
            with ask(server, *transport(), started):
                engine.has_been_read.set()

        await asyncio.to_thread(client)
    assert engine.was_read_in_time
