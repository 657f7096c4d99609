"""The network server: routes, access, error bodies, start and orderly end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

from tightloop.protocol.errors import ApiError
from tightloop.protocol.messages_errors import error_body, error_status
from tightloop.protocol.websocket_mode import http_error_body, retry_headers
from tightloop.server.access import Access
from tightloop.server.chat import ChatApi
from tightloop.server.context_api import ContextApi
from tightloop.server.conversation_api import ConversationApi
from tightloop.server.endpoint import Endpoint
from tightloop.server.http import HttpApi
from tightloop.server.input_items import InputItemsApi
from tightloop.server.lanes import MAX_CONNECTION_S
from tightloop.server.messages import PATH as MESSAGES_PATH
from tightloop.server.messages import MessagesApi
from tightloop.server.models import ModelsApi
from tightloop.server.store import StoreError
from tightloop.server.websocket import MAX_UNSENT_BYTES, Sockets

MAX_BODY_BYTES = 64 << 20
KEEP_ALIVE_S = 3600.0
"""Longer than any tool runs: a client that must reconnect pays several network round trips."""

GRACE_S = 10.0
HUNG_UP = 499
OPEN_TO_ALL = frozenset({"/", "/health"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)


class Server:
    """An endpoint on a port. ``start`` once, then ``stop`` once; ``url`` is known in between."""

    def __init__(
        self,
        endpoint: Endpoint,
        access: Access,
        *,
        host: str,
        port: int,
        max_unsent_bytes: int = MAX_UNSENT_BYTES,
        max_connection_s: float = MAX_CONNECTION_S,
    ) -> None:
        self.url = ""
        self._endpoint = endpoint
        self._host = host
        self._port = port
        self._sockets = Sockets(endpoint, max_unsent_bytes, max_connection_s)
        self._runner = web.AppRunner(
            create_app(endpoint, access, self._sockets),
            access_log=None,
            handler_cancellation=True,  # a peer that hangs up is noticed at once
            keepalive_timeout=KEEP_ALIVE_S,
            shutdown_timeout=1.0,
            logger=_connection_log(),
        )

    @property
    def models(self) -> list[str]:
        """Names of the models served, the default one first; complete after ``start``."""
        return [model.name for model in self._endpoint.engine.models()]

    @property
    def grace_s(self) -> float:
        """How long ``stop`` waits for running responses unless told otherwise."""
        return GRACE_S

    @property
    def num_running(self) -> int:
        """Responses under way."""
        return len(self._endpoint.backstage.running)

    async def start(self) -> str:
        """Load the model, open the store, listen; the API's root URL.

        Raises ``EngineError``, ``StoreError``, or OSError when the port is taken.
        """
        await self._endpoint.start()
        await self._runner.setup()
        # Listening comes last: whoever reaches the port finds a server that can answer.
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        port = self._runner.addresses[0][1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{host}:{port}/v1"
        return self.url

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """Let running responses end for ``grace_s`` seconds, cut the others short, close everything."""
        for site in list(self._runner.sites):
            await site.stop()
        await self._endpoint.drained(grace_s)
        await self._endpoint.cut_short()
        await self._sockets.close()
        await self._runner.cleanup()
        await self._endpoint.close()

    def abort_connections(self) -> None:
        """Cut every connection without a word, as a crash or a lost network would.

        Fault injection: how clients recover is part of what this project promises.
        """
        for transport in self.transports():
            transport.abort()

    def transports(self) -> list[asyncio.Transport]:
        """The open connections, HTTP and WebSocket."""
        server = self._runner.server
        found = (connection.transport for connection in server.connections) if server else ()
        return [transport for transport in found if transport is not None]


def _connection_log() -> logging.Logger:
    log = logging.getLogger(f"{__name__}.connections")
    log.addFilter(_is_our_fault)
    return log


def _is_our_fault(record: logging.LogRecord) -> bool:
    """False for a peer that does not speak HTTP: it gets a 400, and nobody a traceback."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def create_app(endpoint: Endpoint, access: Access, sockets: Sockets) -> web.Application:
    """The routes, without a port."""
    api = HttpApi(endpoint, sockets)
    context = ContextApi(endpoint)
    models = ModelsApi(endpoint)
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_guard(access)])
    app.router.add_post("/v1/responses", api.create)
    app.router.add_get("/v1/responses", api.connect, allow_head=False)
    app.router.add_get("/v1/responses/{id}", api.retrieve, allow_head=False)
    app.router.add_delete("/v1/responses/{id}", api.delete)
    app.router.add_post("/v1/responses/{id}/cancel", api.cancel)
    items = InputItemsApi(endpoint.conversations)
    app.router.add_get("/v1/responses/{id}/input_items", items.list, allow_head=False)
    ConversationApi(endpoint.book).add_routes(app.router)
    app.router.add_post("/v1/responses/input_tokens", context.input_tokens)
    app.router.add_post("/v1/responses/compact", context.compact)
    app.router.add_post("/v1/chat/completions", ChatApi(endpoint).create)
    messages = MessagesApi(endpoint)
    app.router.add_post(MESSAGES_PATH, messages.create)
    app.router.add_post(f"{MESSAGES_PATH}/count_tokens", messages.count_tokens)
    app.router.add_get("/v1/models", models.list)
    app.router.add_get("/v1/models/{id:.+}", models.retrieve, allow_head=False)
    app.router.add_get("/health", api.health)
    app.router.add_get("/", api.health)  # Claude Code looks whether anybody is there
    return app


def _guard(access: Access) -> Any:
    """The one middleware: checks the key and words every refusal as the API does."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.path not in OPEN_TO_ALL:
                access.check(request.headers)
            return await handler(request)
        except ApiError as error:
            return _refusal(request, error)
        except web.HTTPException as error:
            return _refusal(request, _as_api_error(error, request), dict(error.headers))
        except web.RequestPayloadError as error:
            return _unreadable(request, error)
        except StoreError as error:
            _log.error("%s", error)
            return _refusal(request, ApiError(str(error), status=500, error_type="server_error"))
        except ConnectionError:
            return web.Response(status=HUNG_UP)  # nobody reads it, and it is no error of ours
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the one place per request
            _log.exception("%s %s failed", request.method, request.raw_path[:200])
            text = f"internal error: {type(error).__name__}"
            return _refusal(request, ApiError(text, status=500, error_type="server_error"))

    return guard


def _unreadable(request: web.Request, error: Exception) -> web.Response:
    # Nothing more can be read; aiohttp would try, and log a traceback of what it finds.
    request.content.feed_eof()
    reason = str(error).rpartition("message:")[2].strip()  # aiohttp's own words spread over lines
    refused = ApiError(f"the body cannot be read: {reason}", code="invalid_body")
    response = _refusal(request, refused)
    response.force_close()
    return response


def _as_api_error(error: web.HTTPException, request: web.Request) -> ApiError:
    path = request.path[:200]
    if error.status == 404:
        return ApiError(f"no such endpoint: {path}", status=404, code="not_found")
    if error.status == 405:
        text = f"{request.method} is not allowed on {path}"
        return ApiError(text, status=405, code="method_not_allowed")
    if error.status == 413:
        text = f"the body is larger than {MAX_BODY_BYTES} bytes"
        return ApiError(text, status=413, code="request_too_large")
    return ApiError((error.text or error.reason)[:200], status=error.status)


def _refusal(
    request: web.Request, error: ApiError, headers: dict[str, str] | None = None
) -> web.Response:
    """The error in the words of the dialect that was spoken to."""
    kept = {name: value for name, value in (headers or {}).items() if name == "Allow"}
    if error.status == 401:
        kept["WWW-Authenticate"] = "Bearer"
    is_messages = request.path.startswith(MESSAGES_PATH)
    return web.Response(
        body=error_body(error) if is_messages else http_error_body(error),
        status=error_status(error) if is_messages else error.status,
        content_type="application/json",
        headers={**kept, **retry_headers(error)},
    )
