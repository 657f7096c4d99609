"""Streamed Chat Completions over HTTP as a measuring client needs them."""

from typing import Any

import aiohttp
import orjson
from msgspec import Struct

from tightloop.bench import server_timing
from tightloop.client.http_pool import HttpPool, check_status
from tightloop.client.reads import use_small_reads
from tightloop.client.reasons import reason_of
from tightloop.client.transport import TransportError
from tightloop.protocol.errors import RemoteProtocolError, api_error_from_wire
from tightloop.protocol.sse import DONE_DATA, SseDecoder
from tightloop.trace import clock
from tightloop.trace.latency import RoundTrip


class ChatAnswer(Struct, frozen=True):
    """One answer: the message to put into the history, and the figures.

    ``is_reconnected``: the kept connection was gone, and the request was sent again on a new one.
    ``server_timing`` is the header of that name.
    """

    message: dict[str, Any]
    trip: RoundTrip
    num_bytes: int
    is_reconnected: bool = False
    server_timing: str = ""


class ChatLine:
    """``POST {url}/chat/completions``, over one kept connection or a new one per request."""

    def __init__(self, url: str, api_key: str | None, *, reuse_connection: bool) -> None:
        self._url = url
        self._pool = HttpPool(api_key, reuse_connection=reuse_connection)

    async def ask(self, request: dict[str, Any]) -> ChatAnswer:
        """One round trip. Raises ``ApiError`` for a refusal, ``TransportError`` for a broken one."""
        sent_ns = clock.now_ns()
        body = orjson.dumps({**request, "stream": True, "stream_options": {"include_usage": True}})
        is_reconnected = False
        try:
            try:
                reading = await self._exchange(body)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not self._pool.reuses_connection:
                    raise
                is_reconnected = True  # it had been closed while it was idle
                reading = await self._exchange(body)
        except (aiohttp.ClientError, OSError, ValueError, AttributeError, TypeError) as error:
            raise TransportError(
                f"the stream from {self._url} broke: {reason_of(error)}"
            ) from error
        except RemoteProtocolError as error:
            raise TransportError(f"{self._url} sent no event stream: {error}") from error
        if not reading.is_over:
            raise TransportError(f"{self._url} ended the stream before the answer was over")
        trip = reading.trip(sent_ns)
        return ChatAnswer(reading.message(), trip, len(body), is_reconnected, reading.server_timing)

    async def _exchange(self, body: bytes) -> "_Reading":
        reading, decoder = _Reading(), SseDecoder()
        async with self._pool.session.post(f"{self._url}/chat/completions", data=body) as response:
            await check_status(response)
            reading.server_timing = response.headers.get(server_timing.NAME, "")
            if response.connection is not None:
                use_small_reads(response.connection.transport)
            async for chunk in response.content.iter_any():
                now_ns = clock.now_ns()
                for frame in decoder.feed(chunk):
                    reading.take(frame.data, now_ns)
        return reading

    async def close(self) -> None:
        """Close the pooled connections. May be called twice."""
        await self._pool.close()


class _Reading:
    """What the chunks of one answer said."""

    def __init__(self) -> None:
        self.is_over = False
        self.server_timing = ""
        self._text: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._usage: dict[str, Any] = {}
        self._first_ns: int | None = None
        self._last_delta_ns: int | None = None
        self._num_deltas = 0
        self._last_ns = 0

    def take(self, data: bytes, now_ns: int) -> None:
        """Read one event that came at ``now_ns``. Raises ``ApiError`` for an error event."""
        self._last_ns = now_ns
        if data == DONE_DATA:
            self.is_over = True
            return
        chunk = orjson.loads(data)
        if chunk.get("error"):
            raise api_error_from_wire(chunk, status=500)
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices") or ():
            self._delta(choice.get("delta") or {}, now_ns)
            if choice.get("finish_reason"):
                self.is_over = True

    def _delta(self, delta: dict[str, Any], now_ns: int) -> None:
        text, calls = delta.get("content"), delta.get("tool_calls")
        # Servers name the model's hidden thoughts differently; they are output all the same.
        if not (text or calls or delta.get("reasoning_content") or delta.get("reasoning")):
            return
        if self._first_ns is None:
            self._first_ns = now_ns
        self._last_delta_ns = now_ns
        self._num_deltas += 1
        self._text.append(text or "")
        for call in calls or ():
            self._call(call)

    def _call(self, call: dict[str, Any]) -> None:
        number = call.get("index") or 0
        empty = {"id": f"call_{number}", "name": "", "arguments": ""}
        known = self._calls.setdefault(number, empty)
        known["id"] = call.get("id") or known["id"]
        function = call.get("function") or {}
        known["name"] += function.get("name") or ""
        known["arguments"] += function.get("arguments") or ""

    def message(self) -> dict[str, Any]:
        """The assistant's message; calls that were cut off half-way are left out."""
        called = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for call in self._calls.values()
            if _is_json(call["arguments"])
        ]
        text = "".join(self._text)
        if called:
            return {"role": "assistant", "content": text or None, "tool_calls": called}
        return {"role": "assistant", "content": text or "(cut off)"}

    def trip(self, sent_ns: int) -> RoundTrip:
        """The figures, as ``trace.latency`` defines them."""
        details = self._usage.get("prompt_tokens_details") or {}
        return RoundTrip(
            sent_ns=sent_ns,
            first_output_ns=self._first_ns,
            last_event_ns=self._last_ns,
            num_output_events=self._num_deltas,
            first_delta_ns=self._first_ns,
            last_delta_ns=self._last_delta_ns,
            input_tokens=self._usage.get("prompt_tokens") or 0,
            cached_tokens=details.get("cached_tokens") or 0,
            output_tokens=self._usage.get("completion_tokens") or 0,
        )


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
