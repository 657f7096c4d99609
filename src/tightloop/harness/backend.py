"""Where a verb gets its responses from: an engine in this process, or a server."""

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tightloop.client.transport import Transport, TransportError
from tightloop.harness.model_list import context_window, reads_images
from tightloop.protocol.errors import ApiError

if TYPE_CHECKING:
    from tightloop.engine.interface import Engine

LIST_TIMEOUT_S = 5.0
"""For what a server says of a model that was named: it is asked beside connecting."""


class UsageError(Exception):
    """The run cannot start; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Backend:
    """Where responses come from, and in which words to say so.

    ``reads_images`` says whether the model can see, ``context_window`` how many tokens it takes; None
    when its server does not tell.
    """

    transport: Transport
    model: str
    description: str
    reads_images: bool | None = None
    context_window: int | None = None


async def open_backend(
    stack: AsyncExitStack,
    *,
    model: str | None,
    server: str | None,
    transport: str = "ws",
    api_key_env: str | None = None,
) -> Backend:
    """A connected transport; everything it needs is closed with ``stack``.

    Without ``server`` an engine is started in this process and reached through memory, with the
    same protocol. ``api_key_env`` names the variable with the key: by default TIGHTLOOP_API_KEY
    for a server, OPENAI_API_KEY for a remote engine. Raises ``UsageError``.
    """
    if server is None:
        return await _open_engine(model, api_key_env, stack)
    url = _api_root(server)
    variable = api_key_env or "TIGHTLOOP_API_KEY"
    key = os.environ.get(variable)
    listed = None if model else await _listed(url, key)
    name = model or _first_model(listed, url)
    line = _transport(transport, url, key)
    stack.push_async_callback(line.close)
    listing = asyncio.create_task(_listed_if_any(url, key)) if listed is None else None
    try:
        await line.connect()
        if listing is not None:
            listed = await listing
    except TransportError as error:
        hint = "; try --transport http" if "WebSocket" in str(error) else "; is the server running?"
        raise UsageError(f"{error}{hint}") from error
    except ApiError as error:
        hint = ""  # a host that is busy or broken says so itself
        if error.status in (401, 403):
            hint = f"; the key is read from ${variable}"
        elif error.status < 429:
            hint = "; is this the API's root?"
        raise UsageError(f"{error}{hint}") from error
    finally:
        if listing is not None:
            listing.cancel()
    window = context_window(listed, name)
    return Backend(line, name, f"{transport} {url}", reads_images(listed, name), window)


def _transport(kind: str, url: str, key: str | None) -> Transport:
    from tightloop.client.http import HttpTransport
    from tightloop.client.websocket import WebSocketTransport

    return WebSocketTransport(url, key) if kind == "ws" else HttpTransport(url, key)


async def _open_engine(spec: str | None, api_key_env: str | None, stack: AsyncExitStack) -> Backend:
    from tightloop.client.in_memory import InMemoryTransport
    from tightloop.engine.interface import EngineError
    from tightloop.server.endpoint import Endpoint
    from tightloop.server.turns import Manner

    try:
        engine = _engine(spec, api_key_env)
        # Memory does not break like a socket, so nobody comes back to read an answer again: kept
        # events were most of what a long session grew by.
        endpoint = Endpoint(engine, manner=Manner(resumes=False))
        stack.push_async_callback(endpoint.close)
        await endpoint.start()
    except EngineError as error:
        raise UsageError(f"--model: {error}") from error
    transport = InMemoryTransport(endpoint)
    stack.push_async_callback(transport.close)
    info = engine.models()[0]
    size = f" ({info.num_parameters / 1e6:.3g} M parameters)" if info.num_parameters else ""
    description = f"in process, {type(engine).__name__}{size}"
    window = info.context_window or None
    return Backend(transport, info.name, description, info.reads_images, window)


def _engine(spec: str | None, api_key_env: str | None) -> "Engine":
    from tightloop.engine import registry

    options = registry.EngineOptions(api_key_env=api_key_env or registry.DEFAULT_KEY_ENV)
    return registry.create_engine(spec or registry.DEFAULT, options)


def _api_root(server: str) -> str:
    """The API's root as an http URL: ``ws`` is mapped, a missing path becomes ``/v1``."""
    scheme, separator, rest = server.rstrip("/").partition("://")
    names = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
    if not separator or scheme not in names or not rest:
        raise UsageError(f"--server: {server!r} is not an http or ws URL")
    return f"{names[scheme]}://{rest}" + ("" if "/" in rest else "/v1")


async def _listed(url: str, key: str | None, timeout_s: float = 15.0) -> Any:
    """The server's list of models. Raises UsageError."""
    import aiohttp

    from tightloop.client.reasons import reason_of

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as client,
            client.get(f"{url}/models") as response,
        ):
            return await response.json()
    except aiohttp.ContentTypeError as error:
        text = f"{url}/models answered {error.status}, and no list of models"
        raise UsageError(f"{text}; is {url} the API's root?") from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        text = f"cannot reach {url}: {reason_of(error)}"
        raise UsageError(f"{text}; is the server running?") from error
    except ValueError as error:
        raise UsageError(f"{url}/models lists no model; name one with --model") from error


async def _listed_if_any(url: str, key: str | None) -> Any:
    """The list while the connection is made; None when there is none."""
    try:
        return await _listed(url, key, LIST_TIMEOUT_S)
    except UsageError:
        return None


def _first_model(listed: Any, url: str) -> str:
    """The model that the server lists first."""
    try:
        return str(listed["data"][0]["id"])
    except (KeyError, IndexError, TypeError) as error:
        raise UsageError(f"{url}/models lists no model; name one with --model") from error
