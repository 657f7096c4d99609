"""The only way out of a sandbox with the policy ``network``: a proxy with a list of hosts.

It runs outside and listens on a unix socket that is bound into the sandbox; the sandbox itself
has no network. It serves HTTP CONNECT and plain HTTP. Every destination is judged by its name,
resolved here, judged again by its addresses, and connected to by address, so a name cannot mean
something else the second time. In a tunnel the server name of TLS must be the name that was
judged. What is inside TLS is not seen: a host that serves others' sites can be asked for them.
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tightloop.sandbox.client_hello import MAX_HELLO_BYTES, NotTlsError, read_hello
from tightloop.sandbox.host_rules import Address, AllowList, Refused, plain_host
from tightloop.sandbox.proxy_request import MAX_HEAD_BYTES, BadRequest, Request, read_request

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]

MAX_CONNECTIONS: Final = 128
_HEAD_LIMIT_S: Final = 30.0
_CONNECT_LIMIT_S: Final = 10.0
_PIECE_BYTES: Final = 1 << 16
_TLS_ONLY_PORTS: Final = frozenset({80, 443})
_REASONS: Final = {
    400: "Bad Request",
    403: "Forbidden",
    411: "Length Required",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """One destination that was asked for, and what came of it; ``host`` is as the client wrote it."""

    method: str
    host: str
    port: int
    is_allowed: bool
    reason: str = ""


def _ignore(_decision: Decision) -> None:
    """Nobody wants to know."""


async def system_addresses(host: str, port: int) -> list[Address]:
    """What the system's resolver says. Raises OSError when it says nothing."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


class AllowListProxy:
    """Listens from ``start`` to ``close``. ``on_decision`` hears every destination once."""

    def __init__(
        self,
        allow: AllowList,
        *,
        resolve: Resolve = system_addresses,
        on_decision: Callable[[Decision], None] = _ignore,
    ) -> None:
        self._allow = allow
        self._resolve = resolve
        self._on_decision = on_decision
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self, path: Path) -> None:
        """Serve on a unix socket at ``path``. Raises OSError when it cannot be made."""
        self._server = await asyncio.start_unix_server(self._accept, path, limit=MAX_HEAD_BYTES)

    async def close(self) -> None:
        """End every connection. May be called twice."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        serving = set(self._serving)
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)
            await asyncio.sleep(0)  # their sockets are closed in the next iteration

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "called from a coroutine"
        self._serving.add(task)
        try:
            if len(self._serving) > MAX_CONNECTIONS:
                await _answer(writer, 503, f"more than {MAX_CONNECTIONS} connections at once")
            else:
                await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the client has gone, or the proxy is being closed
        finally:
            self._serving.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read_request(reader)
        except BadRequest as bad:
            self._on_decision(Decision("", "", 0, False, str(bad)))
            await _answer(writer, bad.status, str(bad))
            return
        if request is None:
            return
        try:
            host = self._allow.check_name(request.host, request.port)
            addresses = self._allow.check_addresses(host, await self._addresses(host, request.port))
        except Refused as refused:
            self._decide(request, str(refused))
            await _answer(writer, 403, str(refused))
            return
        except OSError as error:
            self._decide(request, f"cannot be resolved: {error}")
            await _answer(writer, 502, f"{request.host} cannot be resolved: {error}")
            return
        try:
            far_reader, far_writer = await _connect(addresses, request.port)
        except OSError as error:
            self._decide(request, f"cannot be reached: {error}")
            await _answer(writer, 502, f"{host}:{request.port} cannot be reached: {error}")
            return
        try:
            if request.is_tunnel:
                await self._tunnel(request, host, (reader, writer), (far_reader, far_writer))
            else:
                self._decide(request)
                await _exchange(request, (reader, writer), (far_reader, far_writer))
        finally:
            far_writer.close()

    async def _addresses(self, host: str, port: int) -> Sequence[Address]:
        async with asyncio.timeout(_CONNECT_LIMIT_S):  # TimeoutError is an OSError
            return await self._resolve(host, port)

    def _decide(self, request: Request, reason: str = "") -> None:
        self._on_decision(Decision(request.method, request.host, request.port, not reason, reason))

    async def _tunnel(
        self,
        request: Request,
        host: str,
        near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        near[1].write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await near[1].drain()

        async def forward() -> None:
            first = await _checked_start(near[0], host, request.port)
            self._decide(request)
            far[1].write(first)
            await _pump(near[0], far[1])

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(far[0], near[1]))
                group.create_task(forward())
        except* Refused as group_of_one:
            self._decide(request, str(group_of_one.exceptions[0]))
        except* OSError:
            pass  # one end broke off; the other is closed by the caller


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    """None when the client goes away without asking."""
    try:
        async with asyncio.timeout(_HEAD_LIMIT_S):
            first = await reader.read(1)
            if not first:
                return None
            if not first.isalpha():  # SOCKS and others wait for an answer to their first bytes
                raise BadRequest("this is an HTTP proxy, and the first byte is not of a request")
            head = first + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as cut:
        raise BadRequest("the request ends before its head does") from cut
    except asyncio.LimitOverrunError as error:
        raise BadRequest(f"a head of more than {MAX_HEAD_BYTES} bytes", 431) from error
    except TimeoutError as error:
        raise BadRequest(f"no whole request within {_HEAD_LIMIT_S:.0f} seconds") from error
    return read_request(head)


async def _connect(
    addresses: Sequence[Address], port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    failure: OSError = OSError("no address")
    for address in addresses:
        try:
            async with asyncio.timeout(_CONNECT_LIMIT_S):
                return await asyncio.open_connection(str(address), port)
        except OSError as error:
            failure = error
    raise failure


async def _checked_start(reader: asyncio.StreamReader, host: str, port: int) -> bytes:
    """The first bytes of a tunnel. Raises Refused when they are for another host.

    Web ports carry TLS only; on a port that a rule names, other protocols pass too.
    """
    data = b""
    while piece := await reader.read(_PIECE_BYTES):
        data += piece
        try:
            hello = read_hello(data)
        except NotTlsError as error:
            if port in _TLS_ONLY_PORTS:
                raise Refused(f"a tunnel to {host}:{port} must carry TLS: {error}") from error
            return data
        if hello is not None:
            if hello.server_name is None or plain_host(hello.server_name) != host:
                raise Refused(f"the tunnel is for {host}, its TLS for {hello.server_name}")
            return data
        if len(data) > 2 * MAX_HELLO_BYTES:
            break
    if data and port in _TLS_ONLY_PORTS:
        raise Refused(f"a tunnel to {host}:{port} must carry TLS")
    return data


async def _exchange(
    request: Request,
    near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """One request and its answer, which ends with the connection. Raises OSError."""

    async def send_body() -> None:
        left = request.num_body_bytes
        while left and (piece := await near[0].read(min(left, _PIECE_BYTES))):
            far[1].write(piece)
            await far[1].drain()
            left -= len(piece)

    far[1].write(request.head)
    sending = asyncio.create_task(send_body())
    try:
        await _pump(far[0], near[1])
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await sending


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _answer(writer: asyncio.StreamWriter, status: int, text: str) -> None:
    body = f"tightloop: {text}\n".encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
