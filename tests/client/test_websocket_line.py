"""One open socket, against a server that writes whatever bytes a test wants."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson
import pytest
from websockets.frames import Opcode

from tests.client.raw_peer import CREATED, DONE, Peer, Script, delta, events, frame, scripted
from tightloop.client import websocket_line
from tightloop.client.transport import Event, TransportError
from tightloop.client.websocket import WebSocketTransport


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[WebSocketTransport]:
    """A transport to a server that runs ``script`` for each connection."""
    async with scripted(script) as url:
        transport = WebSocketTransport(url)
        try:
            yield transport
        finally:
            await transport.close()


async def read(transport: WebSocketTransport) -> list[Event]:
    return [event async for event in transport.stream({"model": "m", "input": "x"})]


async def test_what_one_read_brought_is_handed_over_in_the_call_that_brought_it() -> None:
    """There is no task while the callback is called, so none woke for it; a burst is one call."""
    reads: list[list[Event]] = []
    is_heard = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.hear()
        peer.writer.write(events(CREATED, delta("a"), delta("b")))
        await is_heard.wait()
        peer.writer.write(events(delta("c"), DONE, delta("of nobody")))
        await peer.hear()

    def take(said: list[Event]) -> bool:
        assert asyncio.current_task() is None
        reads.append(said)
        is_heard.set()
        return False

    async with serving(script) as transport:
        await transport.pour({"input": "x"}, take, silence_s=60)
    assert [[CREATED, delta("a"), delta("b")], [delta("c"), DONE]] == reads


async def test_a_callback_can_have_enough_or_fail() -> None:
    """Then the response is cancelled, and the socket is as good as before."""

    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.hear()
            peer.writer.write(events(CREATED, delta("a")))
            kind, said = await peer.hear()
            assert (kind, orjson.loads(said)) == (
                1,
                {"type": "response.cancel", "response_id": "r"},
            )
            peer.writer.write(events(delta("b"), DONE))
        await peer.hear()
        peer.writer.write(events(DONE))
        await peer.hear()

    def fail(_events: list[Event]) -> bool:
        raise ValueError("cannot be read")

    async with serving(script) as transport:
        await transport.pour({}, lambda _events: True, silence_s=60)
        with pytest.raises(ValueError, match="cannot be read"):
            await transport.pour({}, fail, silence_s=60)
        assert await read(transport) == [DONE]


async def test_silence_has_a_limit() -> None:
    async def script(peer: Peer) -> None:
        await peer.hear()
        peer.writer.write(events(CREATED))
        assert b"response.cancel" in (await peer.hear())[1]
        await peer.hear()

    async with serving(script) as transport:
        with pytest.raises(TimeoutError, match=r"said nothing for 0\.05 s"):
            await transport.pour({}, lambda _events: False, silence_s=0.05)


async def test_messages_in_pieces_with_pings_in_between() -> None:
    """A ping is answered with what was in it, also while nobody asks for anything."""

    async def script(peer: Peer) -> None:
        peer.writer.write(frame(b"idle", Opcode.PING))
        assert await peer.hear() == (10, b"idle")
        is_pinged.set()
        await peer.hear()
        whole = orjson.dumps(DONE)
        peer.writer.write(frame(whole[:9], is_last=False) + frame(b"mid", Opcode.PING))
        assert await peer.hear() == (10, b"mid")
        peer.writer.write(frame(whole[9:], Opcode.CONT))
        assert (await peer.hear())[0] == 8

    is_pinged = asyncio.Event()
    async with serving(script) as transport:
        await transport.connect()
        await is_pinged.wait()
        assert await read(transport) == [DONE]


@pytest.mark.parametrize(
    ("sent", "reason", "code"),
    [
        (frame(b"\x03\xf3full", Opcode.CLOSE), r"closed the connection \(code 1011\) full$", 1011),
        (frame(b"", Opcode.CLOSE), r"closed the connection \(code 1005\)$", 1000),
        (frame(b"\0", Opcode.BINARY), "sent a binary frame", 1003),
        (b"\xc1\x01x", "broke the WebSocket protocol: a frame begins with the byte 0xc1", 1002),
        (b"\x81\x7f" + (1 << 62).to_bytes(8, "big"), "a message has more than", 1009),
        (frame(b"7"), "sent a frame that is no event: b'7'", 1000),
    ],
)
async def test_how_a_connection_ends(sent: bytes, reason: str, code: int) -> None:
    """What came before is read, the error says why, the server hears a code, and a new socket is opened."""
    num_connections = 0

    async def script(peer: Peer) -> None:
        nonlocal num_connections
        num_connections += 1
        await peer.hear()
        if num_connections > 1:
            peer.writer.write(events(DONE))
            assert (await peer.hear())[0] == 8
            return
        peer.writer.write(events(CREATED) + sent)
        assert (8, code.to_bytes(2, "big")) == await peer.hear()
        peer.writer.write(frame(b"", Opcode.CLOSE))
        await peer.hears_no_more()

    async with serving(script) as transport:
        seen: list[Event] = []

        def take(said: list[Event]) -> bool:
            seen.extend(said)
            return False

        with pytest.raises(TransportError, match=rf"127\.0\.0\.1.*{reason}"):
            await transport.pour({}, take, silence_s=60)
        assert seen == [CREATED]
        assert await read(transport) == [DONE]


async def test_a_connection_whose_delta_could_not_be_read_is_not_used_again() -> None:
    """The consumer finds out, when it decodes it; no frame behind it would be read."""
    num_connections = 0

    async def script(peer: Peer) -> None:
        nonlocal num_connections
        num_connections += 1
        await peer.hear()
        is_second = num_connections > 1
        broken = frame(b'{"type":"response.output_text.delta","delta":')
        peer.writer.write(events(DONE) if is_second else events(CREATED) + broken)
        assert (await peer.hear())[0] == 8
        peer.writer.write(frame(b"", Opcode.CLOSE))

    async with serving(script) as transport:
        with pytest.raises(TransportError, match="no event"):
            await read(transport)
        assert await read(transport) == [DONE]


async def test_of_many_pings_the_newest_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers to all of them would pile up while the server reads nothing."""
    sent: list[bytes] = []
    has_room = asyncio.Event()

    async def send_frame(payload: bytes, kind: aiohttp.WSMsgType) -> None:
        sent.append(payload)
        await has_room.wait()

    async def script(peer: Peer) -> None:
        assert (await peer.hear())[0] == 8

    async with serving(script) as transport:
        await transport.connect()
        line = transport._line
        assert line is not None
        with monkeypatch.context() as patch:
            patch.setattr(line._socket, "send_frame", send_frame)
            for n in range(4):
                line.data_received(frame(b"%d" % n, Opcode.PING))
                await asyncio.sleep(0)
            assert sent == [b"0"]
            has_room.set()
            assert line._errand is not None
            await line._errand
        assert sent == [b"0", b"3"]


async def test_a_connection_that_breaks_ends_its_responses() -> None:
    async def script(peer: Peer) -> None:
        await peer.hear()
        peer.writer.transport.abort()

    async with serving(script) as transport:
        with pytest.raises(TransportError, match="code 1006"):
            await read(transport)


async def test_a_quiet_server_is_asked_for_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers is kept; one that does not is given up, and its responses end."""
    monkeypatch.setattr(websocket_line, "PING_EVERY_S", 0.01)

    async def script(peer: Peer) -> None:
        heard = [await peer.hear(), await peer.hear()]
        assert heard[1] == (9, b"")
        peer.writer.write(frame(b"", Opcode.PONG))
        assert await peer.hear() == (9, b"")
        monkeypatch.setattr(websocket_line, "PONG_TIMEOUT_S", 0.01)
        peer.writer.write(frame(b"", Opcode.PONG))
        assert await peer.hear() == (9, b"")
        await peer.hears_no_more()

    async with serving(script) as transport:
        with pytest.raises(TransportError, match=r"code 1006\) no answer to a ping for 0.01 s"):
            await read(transport)


async def test_a_server_without_a_goodbye_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever else it says."""
    monkeypatch.setattr(websocket_line, "CLOSE_TIMEOUT_S", 0.01)

    async def script(peer: Peer) -> None:
        assert (await peer.hear())[0] == 8
        peer.writer.write(events(delta("late")))
        await peer.hears_no_more()

    async with serving(script) as transport:
        await transport.connect()
