"""A relay on loopback between a client and a server: keeps what went through, and can cut it.

It is also offered to the client as its proxy for every other host, and refuses those: ``outside``
lists what a client wanted from the rest of the world.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from aiohttp import web

Event = dict[str, Any]
OF_ONE_HOP = frozenset(
    ("host", "connection", "upgrade", "transfer-encoding", "content-length", "keep-alive")
)


@dataclass(slots=True)
class Exchange:
    """One HTTP request and its answer; ``status`` 0 until there is one."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int = 0
    answer: bytearray = field(default_factory=bytearray)

    @property
    def json(self) -> Event:
        """The request's body."""
        body: Event = orjson.loads(self.body)
        return body


@dataclass(slots=True)
class Socket:
    """One WebSocket: the events of either side in order, and how much the client sent."""

    headers: dict[str, str]
    sent: list[Event] = field(default_factory=list)
    received: list[Event] = field(default_factory=list)
    num_sent_bytes: list[int] = field(default_factory=list)
    is_cut: bool = False

    @property
    def creates(self) -> list[Event]:
        """The client's ``response.create`` events."""
        return [event for event in self.sent if event["type"] == "response.create"]


Cut = Callable[[Socket, Event], bool]
CutStream = Callable[[Exchange], bool]
Gate = Callable[[Socket, Event], Awaitable[object]]


class Relay:
    """``async with Relay(url)``; clients are given ``url`` of this object instead.

    ``cut`` is asked about each event of the server before it is passed on: True drops it, and
    the client's connection with it, without a close frame. ``cut_stream`` is asked about an HTTP
    answer each time more of it has come, before that is passed on. ``gate`` is awaited before each
    event is passed on: what comes after it waits too. ``upstream`` may be changed at any time.
    """

    def __init__(
        self,
        upstream: str,
        *,
        cut: Cut | None = None,
        cut_stream: CutStream | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.exchanges: list[Exchange] = []
        self.sockets: list[Socket] = []
        self.outside: list[str] = []
        self.url = ""
        self.origin = ""
        self.upstream = upstream
        self._cut = cut
        self._cut_stream = cut_stream
        self._gate = gate
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> "Relay":
        """Listen on a free port."""
        self._session = aiohttp.ClientSession(auto_decompress=False)
        application = web.Application(client_max_size=1 << 28)
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = self._runner = web.AppRunner(application, shutdown_timeout=0.1, access_log=None)
        # What is meant for other hosts has no path that a router would know.
        application.middlewares.append(self._refuse_outside)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self.url = self.origin + "/v1"
        return self

    async def __aexit__(self, *_details: object) -> None:
        assert self._session is not None
        assert self._runner is not None
        await self._session.close()
        await self._runner.cleanup()

    def posts(self, path: str) -> list[Exchange]:
        """The POST requests to one path, without its query."""
        return [e for e in self.exchanges if e.method == "POST" and e.path.split("?")[0] == path]

    @web.middleware
    async def _refuse_outside(
        self, request: web.Request, handler: Callable[[web.Request], Any]
    ) -> web.StreamResponse:
        target = request.raw_path if request.method == "CONNECT" else request.url.host or ""
        if request.method == "CONNECT" or target != "127.0.0.1":
            self.outside.append(target)
            return web.Response(status=403, text="there is no way out of this test\n")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("upgrade", "").lower() == "websocket":
            return await self._socket(request)
        return await self._exchange(request)

    async def _exchange(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        exchange = Exchange(
            request.method, request.path_qs, dict(request.headers), await request.read()
        )
        self.exchanges.append(exchange)
        async with self._session.request(
            request.method,
            self._address(request),
            headers=_passed_on(request.headers.items()),
            data=exchange.body or None,
        ) as upstream:
            exchange.status = upstream.status
            answer = web.StreamResponse(
                status=upstream.status, headers=_passed_on(upstream.headers.items())
            )
            await answer.prepare(request)
            async for chunk in upstream.content.iter_any():
                exchange.answer += chunk
                if self._cut_stream is not None and self._cut_stream(exchange):
                    assert request.transport is not None
                    request.transport.abort()
                    return answer
                await answer.write(chunk)
            await answer.write_eof()
        return answer

    def _address(self, request: web.Request) -> str:
        return self.upstream.removesuffix("/v1") + request.path_qs

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        record = Socket(dict(request.headers))
        self.sockets.append(record)
        headers = [
            (name, value)
            for name, value in _passed_on(request.headers.items()).items()
            if not name.lower().startswith("sec-websocket")
        ]
        address = self._address(request).replace("http", "ws", 1)
        try:
            upstream = await self._session.ws_connect(address, headers=headers, max_msg_size=0)
        except aiohttp.WSServerHandshakeError as error:
            return web.Response(status=error.status, text=error.message)
        async with upstream:
            client = web.WebSocketResponse(max_msg_size=0)
            await client.prepare(request)
            up = asyncio.create_task(_upwards(client, upstream, record))
            async for message in upstream:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                event = orjson.loads(message.data)
                if self._cut is not None and self._cut(record, event):
                    record.is_cut = True
                    assert request.transport is not None
                    request.transport.abort()
                    break
                if self._gate is not None:
                    await self._gate(record, event)
                record.received.append(event)
                with contextlib.suppress(ConnectionError):
                    await client.send_str(message.data)
            if not record.is_cut:
                await client.close()
            await up
        return client


async def _upwards(
    client: web.WebSocketResponse, upstream: aiohttp.ClientWebSocketResponse, record: Socket
) -> None:
    async for message in client:
        if message.type is not aiohttp.WSMsgType.TEXT:
            break
        record.sent.append(orjson.loads(message.data))
        record.num_sent_bytes.append(len(message.data.encode()))
        await upstream.send_str(message.data)
    await upstream.close()


def _passed_on(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower() not in OF_ONE_HOP}
