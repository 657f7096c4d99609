"""WebSocket mode on a real socket, with an independent client library."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tightloop.engine.scripted import Hold, Script, ScriptedEngine, echo_script, in_turn
from tightloop.governance.keys import KeyRing
from tightloop.protocol.deltas import TextDelta
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.server.websocket import MAX_MESSAGE_BYTES

END = ("response.completed", "response.incomplete", "response.failed", "error")


@asynccontextmanager
async def serving(script: Script = echo_script, *keys: str) -> AsyncIterator[Server]:
    endpoint = Endpoint(ScriptedEngine(script))
    server = Server(endpoint, Access(KeyRing(keys), "127.0.0.1"), host="127.0.0.1", port=0)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(grace_s=0)


def socket(server: Server, **options: Any) -> connect:
    """A connection whose client offers compression, as most do."""
    url = server.url.replace("http", "ws") + "/responses"
    return connect(url, max_size=None, **options)


async def ask(peer: ClientConnection, text: str = "hi", **fields: Any) -> dict[str, Any]:
    create = {"type": "response.create", "model": "scripted", "input": text, **fields}
    await peer.send(orjson.dumps(create).decode())
    return await end(peer)


async def end(peer: ClientConnection) -> dict[str, Any]:
    while True:
        frame = await peer.recv()
        assert isinstance(frame, str), "events are text frames"
        event: dict[str, Any] = orjson.loads(frame)
        if event["type"] in END:
            return event


async def test_a_conversation_over_one_socket() -> None:
    """The parent is unstored and known to the connection; Nagle is off, deflate is declined."""
    async with serving() as server, socket(server) as peer:
        assert peer.protocol.extensions == []
        first = await ask(peer, store=False)
        second = await ask(peer, "more", store=False, previous_response_id=first["response"]["id"])
        assert second["response"]["output"][0]["content"][0]["text"] == "echo: more"


async def test_after_its_time_a_connection_begins_no_more_and_is_closed() -> None:
    """What runs ends first; the close code is one after which clients reconnect."""
    endpoint, access = Endpoint(ScriptedEngine()), Access(KeyRing(), "127.0.0.1")
    server = Server(endpoint, access, host="127.0.0.1", port=0, max_connection_s=0.0)
    await server.start()
    try:
        async with socket(server) as peer:
            limit = await end(peer)
            assert (limit["status"], limit["error"]["code"]) == (
                400,
                "websocket_connection_limit_reached",
            )
            with pytest.raises(ConnectionClosed):
                await peer.recv()
            assert peer.close_code == 1001
    finally:
        await server.stop(grace_s=0)


async def test_only_codex_is_told_the_time_in_its_own_words() -> None:
    """Other clients do not know the event."""
    async with serving() as server:
        for agent, expected in (("codex_exec/0.169.0", 1), ("other/1", 0)):
            async with socket(server, user_agent_header=agent) as peer:
                await peer.send('{"type":"response.create","model":"scripted","input":"hi"}')
                kinds = [orjson.loads(await peer.recv())["type"]]
                while kinds[-1] not in END:
                    kinds.append(orjson.loads(await peer.recv())["type"])
                assert kinds.count("responsesapi.websocket_timing") == expected


async def test_fields_of_other_transports_are_ignored() -> None:
    """Codex and openai-agents send stream: true on a socket."""
    async with serving() as server, socket(server) as peer:
        assert (await ask(peer, stream=True, background=False))["type"] == "response.completed"


async def test_large_and_fragmented_messages_are_one_event() -> None:
    """Histories are large, and a client may split a message where it likes."""
    async with serving() as server, socket(server) as peer:
        done = await ask(peer, "x" * 3_000_000)
        assert len(done["response"]["output"][0]["content"][0]["text"]) == 3_000_006
        body = orjson.dumps({"type": "response.create", "model": "scripted", "input": "ü"}).decode()
        await peer.send([body[:10], body[10:50], body[50:]])
        done = await end(peer)
        assert done["response"]["output"][0]["content"][0]["text"] == "echo: ü"


async def test_a_binary_frame_is_an_error_event_and_no_more() -> None:
    """The connection and its responses go on."""
    async with serving() as server, socket(server) as peer:
        await peer.send(b"\x00\x01\x02")
        error = await end(peer)
        assert (error["status"], error["error"]["type"]) == (400, "invalid_request_error")
        assert "binary" in error["error"]["message"]
        assert (await ask(peer))["type"] == "response.completed"


async def test_a_message_beyond_the_limit_closes_this_connection_only() -> None:
    """With the code for it, as soon as its length is announced; nobody else notices."""
    async with serving() as server, socket(server) as healthy:
        reader, writer = await raw_socket(server)
        writer.write(b"\x81\xff" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big") + b"\0\0\0\0")
        frame = await reader.readexactly(4)
        assert (frame[0], int.from_bytes(frame[2:], "big")) == (0x88, 1009)
        writer.close()
        assert (await ask(healthy))["type"] == "response.completed"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
async def test_a_bad_key_is_a_401_on_the_upgrade(headers: dict[str, str]) -> None:
    """Before any socket exists, in the API's words."""
    async with serving(echo_script, "right") as server:
        with pytest.raises(InvalidStatus) as caught:
            await socket(server, additional_headers=headers)
        assert caught.value.response.status_code == 401
        body = orjson.loads(caught.value.response.body or b"")
        assert body["error"]["code"] == "invalid_api_key"
        right = {"Authorization": "Bearer right"}
        async with socket(server, additional_headers=right) as peer:
            assert (await ask(peer))["type"] == "response.completed"


async def test_pings_are_answered_while_a_response_runs() -> None:
    """The reader does not wait for the engine."""
    hold = Hold()
    async with serving(in_turn([[hold, TextDelta("x")]])) as server, socket(server) as peer:
        task = asyncio.create_task(ask(peer))
        await hold.reached.wait()
        await (await peer.ping())
        hold.release.set()
        assert (await task)["type"] == "response.completed"


async def test_a_closed_socket_stops_its_response() -> None:
    """The engine must not work for nobody."""
    hold = Hold()
    endpoint = Endpoint(ScriptedEngine(in_turn([[TextDelta("x"), hold]])))
    server = Server(endpoint, Access(KeyRing(), "127.0.0.1"), host="127.0.0.1", port=0)
    await server.start()
    peer = await socket(server)
    task = asyncio.create_task(ask(peer))
    await hold.reached.wait()
    await peer.close()
    await asyncio.wait([task])
    assert isinstance(task.exception(), ConnectionClosed)
    await endpoint.drained(30)
    assert not endpoint.backstage.running
    await server.stop(grace_s=0)


async def test_a_peer_that_does_not_read_is_cut_off() -> None:
    """Its unread events must not fill the memory; its response is cancelled."""
    holds = [Hold() for _ in range(4)]
    text = TextDelta("x" * (3 << 20))
    script = in_turn([[step for hold in holds for step in (text, hold)]])
    endpoint = Endpoint(ScriptedEngine(script), resume_grace_s=0)
    access = Access(KeyRing(), "127.0.0.1")
    server = Server(endpoint, access, host="127.0.0.1", port=0, max_unsent_bytes=1 << 18)
    await server.start()
    _, writer = await raw_socket(server)
    create = b'{"type":"response.create","model":"scripted","input":"x","store":false}'
    writer.write(masked(0x81, create))
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    for hold in holds[:-1]:
        await hold.reached.wait()
        hold.release.set()
    await endpoint.drained(30)
    assert not endpoint.backstage.running
    writer.close()
    await server.stop(grace_s=0)


async def test_frames_split_at_every_byte_are_the_same_events() -> None:
    """However the network cuts what a client sends, and whatever pieces a message comes in."""
    create = b'{"type":"response.create","model":"scripted","input":"h\xc3\xa9","store":false}'
    whole = masked(0x81, create)
    pieces = masked(0x01, create[:20]) + masked(0x00, create[20:55]) + masked(0x80, create[55:])
    async with serving() as server:
        for frames in (whole, pieces):
            reader, writer = await raw_socket(server)
            for byte in frames:
                writer.write(bytes([byte]))
                await writer.drain()
            received = b""
            while b'"response.completed"' not in received:
                received += await reader.read(65536)
            assert received.count(b'"response.created"') == 1
            assert '"text":"echo: h\u00e9"'.encode() in received
            writer.close()


def masked(first: int, payload: bytes) -> bytes:
    """A client's frame with an all-zero mask."""
    return bytes([first, 0x80 | len(payload)]) + b"\0\0\0\0" + payload


async def raw_socket(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket after its handshake, for what no client library would do."""
    host, port = server.url.removeprefix("http://").removesuffix("/v1").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"GET /v1/responses HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_peers_that_do_not_answer_a_close_are_all_told_and_not_waited_for() -> None:
    """Silent peers must not hold up the end, let alone one after the other."""
    server = Server(
        Endpoint(ScriptedEngine()), Access(KeyRing(), "127.0.0.1"), host="127.0.0.1", port=0
    )
    await server.start()
    peers = [await raw_socket(server) for _ in range(3)]
    stopping = asyncio.create_task(server.stop(grace_s=0))
    for reader, _ in peers:
        assert (await reader.readexactly(4))[:1] == b"\x88"
    await stopping
    for _, writer in peers:
        writer.close()
