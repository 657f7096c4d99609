"""Which API, over which version of HTTP, a host is asked in."""

import asyncio
import importlib.util
import ssl
from collections.abc import Callable, Mapping

from tightloop.client.transport import TransportError
from tightloop.engine.interface import EngineError
from tightloop.engine.remote.api import Api
from tightloop.engine.remote.chat import ChatApi
from tightloop.engine.remote.host import Host
from tightloop.engine.remote.http1 import Http1Upstream
from tightloop.engine.remote.options import RemoteOptions
from tightloop.engine.remote.responses import ResponsesHttp
from tightloop.engine.remote.sockets import ResponsesSockets
from tightloop.engine.remote.upstream import Upstream
from tightloop.protocol.errors import ApiError

TRY_SOCKET_S = 5.0
"""How long a start waits for a WebSocket; a host that is slower is asked again later, or in a chat."""


async def connect(
    base_url: str,
    headers: Callable[[], Mapping[str, str]],
    options: RemoteOptions,
    ssl_context: ssl.SSLContext | None,
) -> Upstream:
    """The connections that ``options.http`` asks for; none is open yet, but to ask for HTTP/2.

    Raises ``EngineError`` when HTTP/2 is demanded and cannot be had.
    """
    plain = Http1Upstream(base_url, headers, ssl_context=ssl_context, congestion=options.congestion)
    if options.http == "1":
        return plain
    is_demanded = options.http == "2"
    if importlib.util.find_spec("h2") is None or not base_url.startswith("https:"):
        if is_demanded:
            raise EngineError(
                "HTTP/2 needs an https address and the package h2: pip install 'tightloop[http2]'",
                code="engine_unavailable",
            )
        return plain
    from tightloop.engine.remote.http2 import Http2Upstream

    upstream = Http2Upstream(
        base_url, headers, ssl_context=ssl_context, congestion=options.congestion
    )
    if await upstream.is_offered():
        return upstream
    await upstream.close()
    if is_demanded:
        raise EngineError(
            f"{base_url} does not offer HTTP/2 (or cannot be reached); leave the option http out",
            code="engine_unavailable",
        )
    return plain


async def choose_api(host: Host, chat: ChatApi, ssl_context: ssl.SSLContext | None) -> Api:
    """What the option ``api`` asks for; with ``auto`` the WebSocket if the host opens one."""
    if host.options.api == "chat":
        return chat
    if host.options.api == "responses":
        return ResponsesHttp(host, chat)
    sockets = ResponsesSockets(host, chat, ssl_context)
    try:
        async with asyncio.timeout(TRY_SOCKET_S):
            await sockets.open_spare()
    except (TransportError, ApiError, TimeoutError):
        if host.options.api == "auto":
            await sockets.close()
            return chat
        # The first request says what is wrong; the host may only be late.
    return sockets
