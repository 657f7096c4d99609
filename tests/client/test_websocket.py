"""The WebSocket transport against servers that are not ours, or not well."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.client.canned import answering, http
from tests.client.rig import running
from tightloop.client.transport import Event, TransportError
from tightloop.client.websocket import WebSocketTransport
from tightloop.protocol.errors import ApiError

CREATED = '{"type":"response.created","response":{"id":"r"}}'
DONE = '{"type":"response.completed","response":{"id":"r"}}'


@asynccontextmanager
async def foreign(
    handler: Callable[[ServerConnection], Awaitable[None]],
) -> AsyncIterator[WebSocketTransport]:
    async with serve(handler, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        transport = WebSocketTransport(f"ws://127.0.0.1:{port}/v1/")
        yield transport
        await transport.close()


async def events_of(transport: WebSocketTransport) -> list[Event]:
    return [event async for event in transport.stream({"model": "m", "input": "x"})]


async def test_a_foreign_server_is_understood() -> None:
    """With pings in between, which are answered while nobody waits for an event."""

    async def handler(peer: ServerConnection) -> None:
        async for _ in peer:
            await peer.send(CREATED)
            await (await peer.ping())
            await peer.send(DONE)

    async with foreign(handler) as transport:
        for _ in range(2):
            kinds = [event["type"] for event in await events_of(transport)]
            assert kinds == ["response.created", "response.completed"]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"\x00", "binary frame"),
        ("not json", "no event"),
        ("[]", "no event"),
        (None, "code 1011"),
    ],
)
async def test_a_server_that_breaks_the_protocol_is_left(
    frame: str | bytes | None, reason: str
) -> None:
    """The error says how and names the URL; the next request opens a new socket."""
    num_connections = 0

    async def handler(peer: ServerConnection) -> None:
        nonlocal num_connections
        num_connections += 1
        await peer.recv()
        if num_connections > 1:
            await peer.send(DONE)
        elif frame is not None:
            await peer.send(frame)
        else:
            await peer.close(1011, "out of memory")
        await peer.wait_closed()

    async with foreign(handler) as transport:
        with pytest.raises(TransportError, match=rf"127\.0\.0\.1.*{reason}"):
            await events_of(transport)
        assert len(await events_of(transport)) == 1
        assert num_connections == 2


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("426 Upgrade Required", TransportError),
        ("401 Unauthorized", ApiError),
        ("404 Not Found", ApiError),
        ("200 OK", ApiError),
    ],
)
async def test_a_refused_upgrade_says_with_what(status: str, error: type[Exception]) -> None:
    """426 means that there is no WebSocket mode: another transport may work."""
    async with answering(http(status, b"")) as url:
        transport = WebSocketTransport(url)
        with pytest.raises(error, match=status[:3]):
            await transport.connect()
        await transport.close()


async def test_closing_while_another_task_connects_is_safe() -> None:
    """One of the two comes first; nothing is left open either way."""
    async with running("websocket") as rig:
        transport = rig.another("websocket")
        connecting = asyncio.create_task(transport.connect())
        await transport.close()
        await connecting
        await transport.close()


async def test_nagle_is_off_on_both_sides() -> None:
    """One side with it on would cost 40 ms a turn."""
    async with running("websocket") as rig:
        await rig.transport.connect()
        assert isinstance(rig.transport, WebSocketTransport)
        line = rig.transport._line
        assert line is not None
        (server_side,) = rig.server.transports()
        ends = [server_side.get_extra_info("socket"), line._socket.get_extra_info("socket")]
        assert all(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for end in ends)


async def test_who_makes_the_socket_can_be_chosen() -> None:
    made: list[socket.socket] = []

    def make(address: tuple[Any, ...]) -> socket.socket:
        made.append(socket.socket(*address[:3]))
        made[-1].setblocking(False)
        return made[-1]

    async with running("websocket") as rig:
        transport = WebSocketTransport(rig.server.url, socket_factory=make)
        await transport.connect()
        assert transport._line is not None
        used = transport._line.transport.get_extra_info("socket")
        assert used.fileno() in [one.fileno() for one in made]
        await transport.close()


async def test_a_redirect_is_not_followed() -> None:
    """The conversation and the key would go to whom nobody named."""
    async with answering(http("307 Temporary Redirect", b"", "Location: http://[::1]:9/v1")) as url:
        transport = WebSocketTransport(url, "secret")
        with pytest.raises(TransportError, match=r"redirects to 'http://\[::1\]:9/v1'"):
            await transport.connect()
        await transport.close()
