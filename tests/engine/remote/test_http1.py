"""Connections over HTTP/1.1, and how their sockets are set up."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.engine.remote.conftest import Tls
from tightloop.engine.interface import EngineError
from tightloop.engine.remote.http1 import Http1Upstream, encode_head
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


class Raw(asyncio.Protocol):
    """A host that answers the reads of each connection with what was laid out for them.

    Nothing laid out: the connection is closed.
    """

    def __init__(self, heard: list[bytes], answers: Iterator[bytes]) -> None:
        self._heard = heard
        self._answers = answers
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard.append(data)
        answer = next(self._answers)
        if answer:
            self._transport.write(answer)
        else:
            self._transport.close()


@asynccontextmanager
async def raw(*answers: bytes, **options: Any) -> AsyncIterator[tuple[Http1Upstream, list[bytes]]]:
    """An upstream, and what each read of the host brought."""
    heard: list[bytes] = []
    left = iter(answers)
    context: Tls | None = options.pop("tls", None)
    server = await asyncio.get_running_loop().create_server(
        lambda: Raw(heard, left), "127.0.0.1", 0, ssl=context.server if context else None
    )
    port = server.sockets[0].getsockname()[1]
    scheme = "https" if context else "http"
    if context is not None:
        options["ssl_context"] = context.client
    upstream = Http1Upstream(f"{scheme}://127.0.0.1:{port}/v1", dict, **options)
    try:
        yield upstream, heard
    finally:
        await upstream.close()
        server.close()
        await server.wait_closed()


EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


async def test_a_kept_connection_that_was_closed_is_replaced_once() -> None:
    """A new one that is closed without an answer is no sign that the host did nothing."""
    async with raw(EMPTY, b"", EMPTY) as (upstream, heard):
        for _ in range(2):
            await (await upstream.post("/x", b"{}", {})).finish()
        assert len(heard) == 3
        assert heard[1] == heard[2]
    async with raw(b"", EMPTY) as (upstream, heard):
        with pytest.raises(UpstreamError, match="closed it"):
            await upstream.post("/x", b"{}", {})
        assert len(heard) == 1
    async with raw(EMPTY, b"", b"") as (upstream, heard):
        await (await upstream.post("/x", b"{}", {})).finish()
        with pytest.raises(UpstreamError, match="closed it"):
            await upstream.post("/x", b"{}", {})
        assert len(heard) == 3


async def test_a_connection_that_broke_within_an_answer_is_not_replaced() -> None:
    async with raw(EMPTY, b"HTTP/1.1 200 OK\r\nbroken\r\n\r\n") as (upstream, heard):
        await (await upstream.post("/x", b"{}", {})).finish()
        with pytest.raises(UpstreamError, match=r"broke HTTP/1\.1"):
            await upstream.post("/x", b"{}", {})
        assert len(heard) == 2


async def test_what_a_host_is_asked() -> None:
    """In one write, and nothing that would make it compress its answer."""
    async with raw(EMPTY) as (upstream, heard):
        await (await upstream.post("/x", b"{}", {"X-More": "é"})).finish()
    (request,) = heard
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first == "POST /v1/x HTTP/1.1"
    fields = dict(line.split(": ", 1) for line in lines)
    assert fields.pop("Host").startswith("127.0.0.1:")
    assert fields.pop("User-Agent").startswith("tightloop/")
    assert fields == {
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "Content-Length": "2",
        "X-More": "é",
    }
    assert body == b"{}"


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0"])
def test_a_header_cannot_bring_another(value: str) -> None:
    with pytest.raises(EngineError, match="'X-Key' cannot be sent"):
        encode_head("GET", "/v1", {"X-Key": value})


async def test_over_tls(tls: Tls) -> None:
    async with raw(EMPTY, EMPTY, tls=tls) as (upstream, heard):
        for _ in range(2):
            await (await upstream.get("/x", {})).finish()
        assert len(heard) == 2


async def test_a_host_that_takes_only_http2_is_named(tls: Tls) -> None:
    tls.client.set_alpn_protocols(["h2"])
    async with raw(tls=tls) as (upstream, _):
        with pytest.raises(UpstreamError, match="speaks HTTP/2"):
            await upstream.get("/x", {})


async def test_a_host_without_our_trust_is_named(tls: Tls) -> None:
    stranger = Tls(tls.server, ssl.create_default_context())
    async with raw(tls=stranger) as (upstream, _):
        with pytest.raises(UpstreamError, match="certificate verify failed"):
            await upstream.get("/x", {})


async def test_a_host_that_is_silent() -> None:
    async with raw(b"HTTP/1.1 200 OK\r\n", silence_s=0.01) as (upstream, _):
        with pytest.raises(TimeoutError, match="nothing came"):
            await upstream.get("/x", {})


async def test_a_free_connection_is_not_kept_for_ever() -> None:
    async with raw(EMPTY, EMPTY, keep_alive_s=0.01) as (upstream, _):
        reply = await upstream.get("/x", {})
        await reply.finish()
        await reply.line.lost.wait()
        await (await upstream.get("/x", {})).finish()


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://h.example:443/v1", b"h.example"),
        ("http://h.example/v1", b"h.example"),
        ("http://[::1]:8000/v1", b"[::1]:8000"),
        ("https://bücher.example/v1", b"xn--bcher-kva.example"),
    ],
)
def test_how_a_host_is_called(url: str, host: bytes) -> None:
    """Source: RFC 9110, section 7.2; the port only where it is not the usual one."""
    head = Http1Upstream(url, dict).head("GET", "/x", {})
    assert b"\r\nHost: " + host + b"\r\n" in head


def test_a_path_with_odd_characters() -> None:
    head = Http1Upstream("http://h/a b/ü%20/v1", dict).head("GET", "/x", {})
    assert head.startswith(b"GET /a%20b/%C3%BC%20/v1/x HTTP/1.1\r\n")


def test_a_name_that_dns_cannot_have() -> None:
    with pytest.raises(EngineError, match="no name of a host"):
        Http1Upstream(f"http://{'ü' * 80}.example/v1", dict)


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
