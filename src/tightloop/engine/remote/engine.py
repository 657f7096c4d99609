"""An OpenAI-compatible Chat Completions host as an engine.

One connection pool per engine, opened and warmed before the first request and kept alive for ten
minutes, because a tool may run that long between two requests. asyncio sets ``TCP_NODELAY``.
Nothing is retried once a byte of an answer was seen: a second answer could repeat tool calls.
"""

import asyncio
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import orjson

from tightloop.engine.estimate import estimate_tokens
from tightloop.engine.interface import EngineError, GenerationRequest, ModelInfo, Sink
from tightloop.engine.tool_names import offered
from tightloop.protocol.chat_chunk import host_error
from tightloop.protocol.chat_completions import ChatStreamParser, build_request, custom_tool_names
from tightloop.protocol.deltas import Delta, EngineTiming, Finished, FinishReason, Usage
from tightloop.protocol.errors import ApiError, RemoteProtocolError
from tightloop.protocol.sse import DONE_DATA, SseDecoder, SseEvent
from tightloop.trace.clock import Clock, MonotonicClock

if TYPE_CHECKING:
    import aiohttp

KEEP_ALIVE_S = 600.0
CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 600.0
MAX_ERROR_BYTES = 64 * 1024
MAX_WHOLE_BYTES = 16 * 1024 * 1024
"""Largest answer taken from a host that sends one JSON document instead of a stream."""

MAX_HOST_TIME_S = 86_400.0
"""A host's figure above this is no duration of one answer."""

_DRAIN_TIMEOUT_S = 1.0
_NAME = re.compile(r"remote:(?P<model>.+)@(?P<url>https?://\S+)$")
_CODES = {
    400: "invalid_request",
    401: "invalid_api_key",
    402: "insufficient_quota",
    403: "permission_denied",
    404: "model_not_found",
    408: "upstream_timeout",
    413: "context_length_exceeded",
    429: "rate_limit_exceeded",
}


@dataclass(frozen=True, slots=True)
class RemoteName:
    """The parts of ``remote:MODEL@https://HOST/v1``."""

    model: str
    base_url: str


def parse_remote_name(spec: str) -> RemoteName:
    """The model and base URL that ``spec`` names. Raises ``EngineError`` showing the form."""
    match = _NAME.match(spec)
    if match is None or not urlsplit(match["url"]).hostname:
        raise EngineError(
            f"{spec!r} does not name a remote model; write remote:MODEL@https://HOST/v1",
            code="model_not_found",
        )
    return RemoteName(match["model"], match["url"].rstrip("/"))


@dataclass(frozen=True, slots=True)
class HostTimes:
    """What the host says about its own time, in seconds (``time_info``; Groq's ``usage``)."""

    queue_s: float = 0.0
    prompt_s: float = 0.0
    completion_s: float = 0.0


def host_times(chunk: dict[str, Any]) -> HostTimes | None:
    """The host's times in a chunk, or None when it gives none."""
    places = [chunk.get("time_info"), chunk.get("usage")]
    inner = chunk.get("x_groq")
    places.append(inner.get("usage") if isinstance(inner, dict) else None)
    for place in places:
        if isinstance(place, dict) and "completion_time" in place:
            names = ("queue_time", "prompt_time", "completion_time")
            return HostTimes(*(_host_time_s(place.get(name)) for name in names))
    return None


def _host_time_s(value: object) -> float:
    """Seconds; 0 for what is no duration (negative, endless, not a number)."""
    if not isinstance(value, int | float) or not 0 <= value <= MAX_HOST_TIME_S:
        return 0.0
    return float(value)


class RemoteGeneration:
    """Handle of one upstream request."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def cancel(self) -> None:
        """The upstream stream is closed; the sink gets ``Finished`` (CANCELLED)."""
        self._task.cancel()


class RemoteEngine:
    """Serves ``model`` of the host at ``base_url`` (which ends in ``/v1``).

    The key is read from the environment variable ``api_key_env`` at each request; without one no
    ``Authorization`` header is sent, which suits hosts on the own machine.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        context_window: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.model = model
        self.base_url = base_url.rstrip("/")
        self._host = urlsplit(base_url).netloc
        self._api_key_env = api_key_env
        # Whether it reads images only the host can tell, and it does when it is asked.
        self._info = ModelInfo(model, f"{model} at {self._host}", context_window, reads_images=True)
        self._clock: Clock = clock or MonotonicClock()
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def models(self) -> Sequence[ModelInfo]:
        """The one model."""
        return [self._info]

    async def start(self) -> None:
        """The pool is open and a first connection is being made in the background."""
        if self._session is not None:
            return
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S
            ),
            read_bufsize=1 << 20,
        )
        self._keep(asyncio.get_running_loop().create_task(self.warm()))

    async def warm(self) -> None:
        """The pool holds an open connection, if the host can be reached; otherwise nothing."""
        import aiohttp

        session = self._opened()
        try:
            async with session.get(f"{self.base_url}/models", headers=self._headers()) as answer:
                await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return  # the first request will say what is wrong

    async def close(self) -> None:
        """Running generations are cancelled and the pool is closed. May be called twice."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def count_input(self, request: GenerationRequest) -> int:
        """An estimate: only the host has the tokeniser."""
        return estimate_tokens(request)

    def submit(self, request: GenerationRequest, sink: Sink) -> RemoteGeneration:
        """Ask the host. A request that only prewarms costs money there and is not passed on."""
        call = _Call(self._clock, sink)
        task = asyncio.get_running_loop().create_task(self._run(request, call))
        self._keep(task)
        # A task that is cancelled before its first step never runs, and still must end.
        task.add_done_callback(lambda _: call.end(Finished(FinishReason.CANCELLED, Usage())))
        return RemoteGeneration(task)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _opened(self) -> "aiohttp.ClientSession":
        if self._session is None:
            raise EngineError("the engine has not been started", code="engine_unavailable")
        return self._session

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self._api_key_env)
        return {"Authorization": f"Bearer {key}"} if key else {}

    async def _run(self, request: GenerationRequest, call: "_Call") -> None:
        import aiohttp

        if not request.generate:
            call.end(Finished(FinishReason.STOP, Usage()))
            return
        try:
            await self._stream(request, call)
        except asyncio.CancelledError:
            call.end(Finished(FinishReason.CANCELLED, Usage()))
        except ApiError as error:
            call.fail(error.code or "upstream_error", error.message)
        except EngineError as error:
            call.fail(error.code, str(error))
        except RemoteProtocolError as error:
            call.fail("upstream_error", f"{self._who()} sent what is no chat stream: {error}")
        except TimeoutError:
            call.fail("upstream_timeout", f"{self._who()} was silent for too long")
        except (aiohttp.ClientError, OSError) as error:
            call.fail("upstream_error", f"the connection to {self._who()} failed: {error!r}")

    def _who(self) -> str:
        return f"{self._host} (model {self.model})"

    async def _stream(self, request: GenerationRequest, call: "_Call") -> None:
        sampling = request.sampling
        body = build_request(
            request.context(),
            request.instructions,
            offered(request),
            model=self.model,
            tool_choice=request.tool_choice,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            max_output_tokens=request.max_output_tokens,
            stop=sampling.stop,
            parallel_tool_calls=request.parallel_tool_calls,
            output_format=request.output_format,
            reasoning_effort=request.reasoning_effort,
        )
        response = await self._post(orjson.dumps(body))
        try:
            if response.status != 200:
                raise await self._refusal(response)
            call.parser = ChatStreamParser(
                custom_tool_names(request.tools),
                new_id=lambda prefix: f"{prefix}_{secrets.token_hex(12)}",
            )
            await self._read(response, call, call.parser)
        finally:
            response.close()

    async def _post(self, body: bytes) -> "aiohttp.ClientResponse":
        """The response's head. A kept connection that the host had closed is replaced once."""
        import aiohttp

        session = self._opened()
        headers = {"Content-Type": "application/json", **self._headers()}
        url = f"{self.base_url}/chat/completions"
        try:
            return await session.post(url, data=body, headers=headers)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError):
                raise
            return await session.post(url, data=body, headers=headers)

    async def _read(
        self, response: "aiohttp.ClientResponse", call: "_Call", parser: ChatStreamParser
    ) -> None:
        if "json" in response.headers.get("content-type", ""):
            # An error with status 200, or an answer from a host that does not stream.
            body = _said(await _whole(response, MAX_WHOLE_BYTES))
            call.times = host_times(body) if isinstance(body, dict) else None
            call.say(parser.feed_whole(body), self._who())
            return
        who, decoder = self._who(), SseDecoder()
        async for piece in response.content.iter_any():
            deltas: list[Delta] = []
            try:
                is_done = _take(decoder.feed(piece), call, parser, deltas)
            finally:  # what came before a fault is part of the answer
                call.say(deltas, who)
            if is_done or parser.is_finished:
                break
        call.say(parser.end(), who)
        # What follows the end is read, so that the connection can be used again.
        try:
            async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                await response.content.read()
        except TimeoutError:
            return
        await response.release()

    async def _refusal(self, response: "aiohttp.ClientResponse") -> EngineError:
        raw = await _whole(response, MAX_ERROR_BYTES)
        error = host_error(_said(raw), status=response.status)
        retry = response.headers.get("retry-after")
        return _explained(error, self._who(), self._api_key_env, retry)


def _explained(error: ApiError, who: str, key_env: str, retry_after: str | None) -> EngineError:
    status = error.status
    code = _CODES.get(status, "upstream_error")
    advice = ""
    if status == 401:
        advice = f"; set a valid key in {key_env}"
    elif status == 404:
        advice = "; check the model's name and the base URL, models are retired often"
    elif status == 429:
        advice = f"; retry after {retry_after} s" if retry_after else "; retry later"
    if status in (400, 413) and "context" in f"{error.code} {error.message}".lower():
        code = "context_length_exceeded"
    return EngineError(f"{who} answered {status}: {error.message}{advice}", code=code)


async def _whole(response: "aiohttp.ClientResponse", max_bytes: int) -> bytes:
    """The body up to ``max_bytes``: one read gives only what has arrived."""
    parts: list[bytes] = []
    num_bytes = 0
    async for part in response.content.iter_any():
        parts.append(part)
        num_bytes += len(part)
        if num_bytes >= max_bytes:
            break
    return b"".join(parts)[:max_bytes]


def _take(
    events: list[SseEvent], call: "_Call", parser: ChatStreamParser, deltas: list[Delta]
) -> bool:
    """The events' deltas are added; whether ``[DONE]`` came. Raises ``RemoteProtocolError``."""
    for event, data in events:
        if event == "error":
            deltas.extend(parser.fail(_said(data)))
            continue
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            text = data.strip()
            if text == DONE_DATA:
                return True
            if text:  # else a sign of life
                raise RemoteProtocolError(f"{data[:80]!r} is not JSON") from error
            continue
        if not isinstance(chunk, dict):
            raise RemoteProtocolError(f"{data[:80]!r} is not a JSON object")
        call.times = host_times(chunk) or call.times
        deltas.extend(parser.feed(chunk))
    return False


def _said(data: bytes) -> Any:
    """What a host says outside a stream: decoded JSON, or else the text's beginning."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return data[:200].decode("utf-8", "replace")


class _Call:
    """What one request has said so far; ends with exactly one ``Finished``."""

    def __init__(self, clock: Clock, sink: Sink) -> None:
        self.times: HostTimes | None = None
        self.parser: ChatStreamParser | None = None
        self._clock = clock
        self._sink = sink
        self._submitted_ns = clock.now_ns()
        self._first_ns = 0
        self._is_ended = False

    def say(self, deltas: Sequence[Delta], who: str) -> None:
        """Hand the deltas on, the last one complete with its timing."""
        if not deltas or self._is_ended:
            return
        last = deltas[-1]
        if not isinstance(last, Finished):
            self._mark()
            self._sink(deltas)
            return
        if len(deltas) > 1:
            self._mark()
        if last.reason is FinishReason.ERROR:
            text = f"{who}: {last.error_message}"
            last = msgspec.structs.replace(last, error_message=text)
        self._finish([*deltas[:-1], last])

    def fail(self, code: str, message: str) -> None:
        """End with an error."""
        self.end(Finished(FinishReason.ERROR, Usage(), None, code, message))

    def end(self, finished: Finished) -> None:
        """End, unless it has ended."""
        if not self._is_ended:
            self._finish([finished])

    def _mark(self) -> None:
        self._first_ns = self._first_ns or self._clock.now_ns()

    def _finish(self, deltas: list[Delta]) -> None:
        self._is_ended = True
        last = deltas[-1]
        assert isinstance(last, Finished)
        timed = msgspec.structs.replace(last, timing=self._timing(last.usage))
        self._sink([*deltas[:-1], timed])

    def _timing(self, usage: Usage) -> EngineTiming:
        """The host's own durations laid before the end; without them what was seen from here."""
        submitted, finished = self._submitted_ns, self._clock.now_ns()
        started, prefilled, decode = submitted, self._first_ns or finished, 0
        if self.times is not None:
            decode = round(self.times.completion_s * 1e9)
            prefilled = max(submitted, finished - decode)
            started = max(submitted, prefilled - round(self.times.prompt_s * 1e9))
        return EngineTiming(
            submitted_ns=submitted,
            started_ns=started,
            prefilled_ns=prefilled,
            finished_ns=finished,
            num_prefill_tokens=max(0, usage.input_tokens - usage.cached_tokens),
            num_decode_steps=usage.output_tokens,
            decode_ns=decode,
            first_delta_ns=self._first_ns,
        )
