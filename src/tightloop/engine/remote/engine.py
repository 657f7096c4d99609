"""An OpenAI-compatible host as an engine.

Connections are opened and warmed before the first request and kept for ten minutes, because a
tool may run that long between two requests. Nothing is asked again once a byte of an answer was
seen: a second answer could repeat tool calls.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Coroutine, Sequence
from typing import Any

from tightloop.engine.estimate import estimate_tokens
from tightloop.engine.interface import EngineError, GenerationRequest, ModelInfo, Sink
from tightloop.engine.remote.api import Api
from tightloop.engine.remote.call import Call
from tightloop.engine.remote.catalog import PATH as MODELS_PATH
from tightloop.engine.remote.catalog import Catalog
from tightloop.engine.remote.chat import ChatApi
from tightloop.engine.remote.host import Host
from tightloop.engine.remote.options import (
    RemoteName,
    RemoteOptions,
    check_key_env,
    parse_remote_name,
)
from tightloop.engine.remote.upstream import UpstreamError, open_socket
from tightloop.engine.remote.warming import Warmer
from tightloop.protocol.deltas import Finished, FinishReason, Usage
from tightloop.protocol.errors import ApiError, RemoteProtocolError
from tightloop.trace.clock import Clock, MonotonicClock

_log = logging.getLogger(__name__)


class RemoteGeneration:
    """Handle of one upstream request."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def cancel(self) -> None:
        """The upstream stream is closed; the sink gets ``Finished`` (CANCELLED)."""
        self._task.cancel()


class RemoteEngine:
    """Serves ``model`` of the host at ``base_url`` (which ends in ``/v1``), ``*`` for all it lists.

    ``api_key_env`` names the variable that holds the key, unless the options do.
    ``ssl_context`` replaces the system's trust.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        options: RemoteOptions | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        clock: Clock | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        options = options or RemoteOptions()
        name = RemoteName(model, base_url, options)
        self._clock: Clock = clock or MonotonicClock()
        self._host = Host(base_url, options, api_key_env)
        self._catalog = Catalog(self._host, None if name.is_all else model, self._clock)
        self._is_all = name.is_all
        self._ssl = ssl_context
        self._api: Api | None = None
        self._chat = ChatApi(self._host)
        self._warmer = Warmer(self._run_now, self._host.keys) if options.warms_up else None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_refreshing = False

    @property
    def host(self) -> Host:
        """What is known of the host."""
        return self._host

    @property
    def api(self) -> Api | None:
        """How the host is asked; None when the engine is not running."""
        return self._api

    def models(self) -> Sequence[ModelInfo]:
        """The one model, or those the host listed last; an old list is asked for again meanwhile."""
        if self._is_all and self._api is not None and self._catalog.is_stale:
            self._refresh_aside()
        return self._catalog.models()

    async def start(self) -> None:
        """Connections are open, or being made in the background.

        With ``*`` the list of models is here; raises ``EngineError`` when the host gives none.
        """
        if self._api is not None:
            return
        options = self._host.options
        if options.congestion:
            open_socket((socket.AF_INET, socket.SOCK_STREAM, 0), options.congestion).close()
        # Imported now: aiohttp alone takes a tenth of a second.
        from tightloop.engine.remote.connecting import choose_api, connect

        host = self._host
        host.upstream = await connect(host.base_url, host.headers, options, self._ssl)
        try:
            self._api = await choose_api(self._host, self._chat, self._ssl)
        except BaseException:
            await host.upstream.close()
            raise
        if self._is_all:
            try:
                await self._catalog.refresh()
            except BaseException:
                await self.close()
                raise
            self._keep(self._warm_more(options.warm - 1))
        else:
            self._keep(self._warm_first(options.warm))

    async def warm(self, num: int = 1) -> bool:
        """Whether the host can be reached; then ``num`` more connections are open.

        The list of models, which is what is asked for, is read by the way.
        """
        replies = await self._host.upstream.warm(num, MODELS_PATH)
        for reply in replies:
            try:
                await self._catalog.take(reply)
            except (UpstreamError, TimeoutError, EngineError):
                reply.close()  # a model that was named works without a list
        return bool(replies)

    async def _warm_more(self, num: int) -> None:
        await self.warm(num)

    async def _warm_first(self, num: int) -> None:
        """Connections are open; if not one is, the log says why, and what that means."""
        if not num or await self.warm(num):
            return
        try:
            (await self._host.upstream.get(MODELS_PATH, {})).close()
        except (UpstreamError, TimeoutError, EngineError) as error:
            _log.warning(
                "%s cannot be reached now, so requests for %s will fail; each of them tries again: %s",
                self._host.base_url, self._catalog.models()[0].name, self._host.without_key(str(error)),
            )  # fmt: skip

    async def close(self) -> None:
        """Running generations are cancelled and the connections closed. May be called twice."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        api, self._api = self._api, None
        if api is not None:
            await api.close()
            await self._chat.close()
            await self._host.upstream.close()

    async def count_input(self, request: GenerationRequest) -> int:
        """An estimate: only the host has the tokeniser."""
        return estimate_tokens(request)

    def submit(self, request: GenerationRequest, sink: Sink) -> RemoteGeneration:
        """Ask the host. Prefill hints cost money there: passed on only with ``warms_up``."""
        who = f"{self._host.address} (model {self._name(request)})"
        call = Call(self._clock, sink, who, hide=self._host.without_key)
        task = self._keep(self._run(request, call))
        # A task that is cancelled before its first step never runs, and still must end.
        task.add_done_callback(lambda _: call.end(Finished(FinishReason.CANCELLED, Usage())))
        return RemoteGeneration(task)

    # ------------------------------------------------------------------ inside

    def _name(self, request: GenerationRequest) -> str:
        return request.model if self._is_all else self._catalog.models()[0].name

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _refresh_aside(self) -> None:
        if not self._is_refreshing:
            self._is_refreshing = True
            self._keep(self._refresh())

    async def _refresh(self) -> None:
        try:
            await self._catalog.refresh()
        except EngineError:
            return  # what was listed before stays; the next look asks again in a while
        finally:
            self._is_refreshing = False

    async def _run(self, request: GenerationRequest, call: Call) -> None:
        try:
            if request.generate and not request.is_open:
                await self._run_now(request, call)
            elif self._warmer is not None:
                await self._warmer.hint(request, call)
        except asyncio.CancelledError:
            call.end(Finished(FinishReason.CANCELLED, Usage()))
        call.end(Finished(FinishReason.STOP, Usage()))  # a hint; an answer has ended by itself

    async def _run_now(self, request: GenerationRequest, call: Call) -> None:
        try:
            if self._api is None:
                raise EngineError("the engine is not running", code="engine_unavailable")
            if self._is_all and self._catalog.is_stale:
                self._refresh_aside()
            model = self._catalog.route(request.model)
            api = self._api if request.generate else self._chat
            await api.converse(request, model, call)
        except ApiError as error:
            call.fail(error.code or "upstream_error", error.message, error.retry_after_s)
        except EngineError as error:
            call.fail(error.code, str(error), getattr(error, "retry_after_s", None))
        except RemoteProtocolError as error:
            call.fail("upstream_error", f"{call.who} sent what cannot be read: {error}")
        except TimeoutError:
            call.fail("upstream_timeout", f"{call.who} was silent for too long")
        except (UpstreamError, OSError) as error:
            call.fail("upstream_error", f"the connection to {call.who} failed: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the response has an end
            # A fault of ours, which must not look like a cancelled response.
            _log.exception("asking %s failed", call.who)
            call.fail("server_error", f"asking {call.who} failed: {type(error).__name__}: {error}")


def create_remote(spec: str, *, api_key_env: str = "OPENAI_API_KEY") -> RemoteEngine:
    """The engine that ``spec`` names (see ``options``), not started. Raises ``EngineError``."""
    name = parse_remote_name(spec)
    check_key_env(api_key_env)
    return RemoteEngine(name.model, name.base_url, options=name.options, api_key_env=api_key_env)
