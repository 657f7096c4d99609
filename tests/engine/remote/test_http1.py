"""Connections over HTTP/1.1, and how their sockets are set up."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tightloop.engine.interface import EngineError
from tightloop.engine.remote.http1 import Http1Upstream
from tightloop.engine.remote.upstream import UpstreamError, open_socket, read_whole


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Http1Upstream, list[int]]]:
    """An upstream, and the client's port of each request."""
    ports: list[int] = []

    async def answer(http: web.Request) -> web.Response:
        assert http.transport is not None
        ports.append(http.transport.get_extra_info("peername")[1])
        return web.json_response(dict(http.headers))

    app = web.Application()
    app.router.add_route("*", "/v1/{path}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    upstream = Http1Upstream(url, lambda: {"Authorization": "Bearer k"}, **options)
    try:
        yield upstream, ports
    finally:
        await upstream.close()
        await runner.cleanup()


async def test_small_writes_go_out_at_once() -> None:
    """Nagle's algorithm costs 40 ms a request where the other end delays its acknowledgements."""
    made: list[socket.socket] = []

    def spy(address: Any) -> socket.socket:
        made.append(open_socket(address))
        return made[-1]

    async with serving(socket_factory=spy) as (upstream, _):
        reply = await upstream.post("/x", b"{}", {})
        (sock,) = made
        assert sock.getpeername()[0] == "127.0.0.1"
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        await reply.finish()


async def test_a_connection_is_used_again_once_its_answer_was_read() -> None:
    async with serving() as (upstream, ports):
        for _ in range(3):
            reply = await upstream.post("/x", b"{}", {"X-More": "1"})
            said = await read_whole(reply, 999)
            await reply.finish()
        assert b"Bearer k" in said
        assert b"X-More" in said
    assert len(ports) == 3
    assert len(set(ports)) == 1


async def test_warming_opens_connections_side_by_side() -> None:
    async with serving() as (upstream, ports):
        replies = await upstream.warm(3, "/models")
        assert [reply.status for reply in replies] == [200] * 3
        for reply in replies:
            await reply.finish()
    assert len(set(ports)) == 3


async def test_a_host_that_cannot_be_reached() -> None:
    upstream = Http1Upstream("http://127.0.0.1:1/v1", dict)
    assert await upstream.warm(2, "/models") == []
    with pytest.raises(UpstreamError, match="Cannot connect"):
        await upstream.post("/x", b"", {})
    await upstream.close()
    with pytest.raises(EngineError, match="has been closed"):
        await upstream.get("/x", {})


def test_congestion_control_is_the_kernel_s_to_know() -> None:
    address = (socket.AF_INET, socket.SOCK_STREAM, 0)
    plain = open_socket(address)
    size = 16
    own = plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, size).rstrip(b"\0")
    plain.close()
    same = open_socket(address, own.decode())
    assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, size).rstrip(b"\0") == own
    same.close()
    with pytest.raises(EngineError, match="no congestion control 'warp'"):
        open_socket(address, "warp")


def test_a_socket_that_is_no_tcp_is_left_as_it_is() -> None:
    open_socket((socket.AF_UNIX, socket.SOCK_STREAM, 0)).close()
