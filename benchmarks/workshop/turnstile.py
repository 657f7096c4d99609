"""Stands between an agent and a server: lets one request through in its turn, and notes the time.

A gap is what an agent and its tool take together: from the moment before the last event of a
response with a call is handed to the agent, to the moment in which the request with the call's
output has arrived. The agent then waits for its next turn, so that agents which run side by side
never work side by side. It is also every agent's proxy for other hosts, and refuses those.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from benchmarks.workshop.turns import Turns
from tightloop.trace.clock import now_ns

OF_ONE_HOP = frozenset(
    ("host", "connection", "upgrade", "transfer-encoding", "content-length", "keep-alive")
)
OUTPUTS = ("function_call_output", "custom_tool_call_output")
CALLS = ("function_call", "custom_tool_call")


class Turnstile:
    """``async with Turnstile(...)``; the agent is given ``url`` instead of the server's.

    After the calls numbered in ``keeping`` (from 0) the turn goes on: what follows comes at once, as
    from a model that takes no time, and nothing can be made ready between the two.
    ``gaps_ns`` has a duration for each call, in order; ``outputs`` what was sent back for it.
    ``arrived_ns`` and ``passed_ns`` are when each request came and when it was let through.
    """

    def __init__(
        self, upstream: str, turns: Turns, name: str, keeping: Collection[int] = ()
    ) -> None:
        self.gaps_ns: list[int] = []
        self.outputs: list[str] = []
        self.arrived_ns: list[int] = []
        self.passed_ns: list[int] = []
        self.origin = ""
        self.url = ""
        self._upstream, self._turns, self._name = upstream, turns, name
        self._keeping = frozenset(keeping)
        self._called_ns = 0
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> "Turnstile":
        """Listen on a free port."""
        self._session = aiohttp.ClientSession(auto_decompress=False)
        application = web.Application(client_max_size=1 << 28, middlewares=[_refuse_outside])
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.origin = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.url = self.origin + "/v1"
        return self

    async def __aexit__(self, *_details: object) -> None:
        assert self._session is not None
        assert self._runner is not None
        await self._session.close()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("upgrade", "").lower() == "websocket":
            return await self._socket(request)
        assert self._session is not None
        async with self._session.request(
            request.method,
            self._upstream.removesuffix("/v1") + request.path_qs,
            headers=_passed_on(request.headers),
            data=await request.read() or None,
        ) as answer:
            headers = _passed_on(answer.headers)
            return web.Response(status=answer.status, headers=headers, body=await answer.read())

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        address = self._upstream.removesuffix("/v1").replace("http", "ws", 1) + request.path_qs
        headers = {
            name: value
            for name, value in _passed_on(request.headers).items()
            if not name.lower().startswith("sec-websocket")
        }
        async with self._session.ws_connect(address, headers=headers, max_msg_size=0) as upstream:
            client = web.WebSocketResponse(max_msg_size=0)
            await client.prepare(request)
            up = asyncio.create_task(self._upwards(client, upstream))
            async for message in upstream:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                self._on_event(message.data)
                with contextlib.suppress(ConnectionError):
                    await client.send_str(message.data)
            await client.close()
            await up
        return client

    def _on_event(self, data: str) -> None:
        """The last event of a response with a call starts a gap, just before it is handed on."""
        if '"response.completed"' not in data:
            return
        event = orjson.loads(data)
        if event["type"] == "response.completed" and has_call(event):
            self._called_ns = now_ns()

    async def _upwards(
        self, client: web.WebSocketResponse, upstream: aiohttp.ClientWebSocketResponse
    ) -> None:
        async for message in client:
            arrived_ns = now_ns()
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            event = orjson.loads(message.data)
            if event["type"] == "response.create" and event.get("generate", True):
                await self._on_request(event, arrived_ns)
            await upstream.send_str(message.data)
        await self._turns.leave(self._name)
        await upstream.close()

    async def _on_request(self, event: Mapping[str, Any], arrived_ns: int) -> None:
        last = event["input"][-1] if event.get("input") else {}
        if last.get("type") in OUTPUTS and self._called_ns:
            self.gaps_ns.append(arrived_ns - self._called_ns)
            self.outputs.append(str(last.get("output")))
            if len(self.gaps_ns) - 1 not in self._keeping:
                await self._turns.give(self._name)
        self.arrived_ns.append(arrived_ns)
        await self._turns.take(self._name)
        self.passed_ns.append(now_ns())


def has_call(event: Mapping[str, Any]) -> bool:
    """Whether the response that this event ends asks for a tool."""
    return any(item["type"] in CALLS for item in event["response"]["output"])


@web.middleware
async def _refuse_outside(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    target = request.raw_path if request.method == "CONNECT" else request.url.host or ""
    if request.method == "CONNECT" or target != "127.0.0.1":
        return web.Response(status=403, text="there is no way out of this measurement\n")
    return await handler(request)


def _passed_on(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in OF_ONE_HOP}
