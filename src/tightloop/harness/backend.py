"""Where a verb gets its responses from: an engine in this process, or a server."""

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tightloop.client.transport import Transport, TransportError
from tightloop.protocol.errors import ApiError

if TYPE_CHECKING:
    from tightloop.engine.interface import Engine


class UsageError(Exception):
    """The run cannot start; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Backend:
    """Where responses come from, and in which words to say so."""

    transport: Transport
    model: str
    description: str


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
    name = model or await _first_model(url, key)
    line = _transport(transport, url, key)
    stack.push_async_callback(line.close)
    try:
        await line.connect()
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
    return Backend(line, name, f"{transport} {url}")


def _transport(kind: str, url: str, key: str | None) -> Transport:
    from tightloop.client.http import HttpTransport
    from tightloop.client.websocket import WebSocketTransport

    return WebSocketTransport(url, key) if kind == "ws" else HttpTransport(url, key)


async def _open_engine(spec: str | None, api_key_env: str | None, stack: AsyncExitStack) -> Backend:
    from tightloop.client.in_memory import InMemoryTransport
    from tightloop.engine.interface import EngineError
    from tightloop.server.endpoint import Endpoint

    try:
        engine = _engine(spec, api_key_env)
        endpoint = Endpoint(engine)
        stack.push_async_callback(endpoint.close)
        await endpoint.start()
    except EngineError as error:
        raise UsageError(f"--model: {error}") from error
    transport = InMemoryTransport(endpoint)
    stack.push_async_callback(transport.close)
    info = engine.models()[0]
    size = f" ({info.num_parameters / 1e6:.3g} M parameters)" if info.num_parameters else ""
    return Backend(transport, info.name, f"in process, {type(engine).__name__}{size}")


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


async def _first_model(url: str, key: str | None) -> str:
    """The model that the server lists first."""
    import aiohttp

    from tightloop.client.reasons import reason_of

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = aiohttp.ClientTimeout(total=15)
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as client,
            client.get(f"{url}/models") as response,
        ):
            listed: Any = await response.json()
        return str(listed["data"][0]["id"])
    except aiohttp.ContentTypeError as error:
        text = f"{url}/models answered {error.status}, and no list of models"
        raise UsageError(f"{text}; is {url} the API's root?") from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        text = f"cannot reach {url}: {reason_of(error)}"
        raise UsageError(f"{text}; is the server running?") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UsageError(f"{url}/models lists no model; name one with --model") from error
