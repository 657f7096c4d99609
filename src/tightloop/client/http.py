"""The Responses API over HTTP: one POST a response, answered by server-sent events.

The connection is kept for ten minutes between responses, longer than tools usually run, because a
new one costs several network round trips. ``reuse_connection=False`` opens one per request: the
classic baseline that benchmarks compare with.
"""

import io
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import aiohttp
import orjson

from tightloop.client.reads import use_small_reads
from tightloop.client.transport import Event, TransportError
from tightloop.protocol.accumulator import TERMINAL_TYPES
from tightloop.protocol.errors import (
    MAX_MESSAGE_CHARS,
    ApiError,
    RemoteProtocolError,
    api_error_from_wire,
)
from tightloop.protocol.sse import DONE_DATA, SseDecoder

KEEP_ALIVE_S = 600.0
CONNECT_TIMEOUT_S = 15.0
ONE_WRITE_BYTES = 1 << 20


class HttpTransport:
    """``Transport`` over ``POST {url}/responses``; ``url`` e.g. ``http://127.0.0.1:8099/v1``."""

    supports_continuation = False

    def __init__(
        self, url: str, api_key: str | None = None, *, reuse_connection: bool = True
    ) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._reuse_connection = reuse_connection
        self._session: aiohttp.ClientSession | None = None

    async def connect(self) -> None:
        """Have a warm connection in the pool; checks address and key with ``GET /models``."""
        if self._session is not None:
            return
        session = self._opened()
        if self._reuse_connection:
            try:
                async with session.get(f"{self.url}/models") as response:
                    await _check(response)
                    await response.read()
            except (aiohttp.ClientError, OSError, ValueError) as error:
                await self.close()
                raise TransportError(f"cannot connect to {self.url}: {error!r}") from error
            except ApiError:
                await self.close()
                raise

    async def stream(self, request: dict[str, Any]) -> AsyncGenerator[Event, None]:
        """See ``Transport.stream``; closing the iterator early drops the connection."""
        body = orjson.dumps({**request, "stream": True})
        decoder = SseDecoder()
        refusal: ApiError | None = None
        is_over = False
        try:
            # aiohttp writes a file-like body in pieces and asks for that beyond 1 MiB.
            data = body if len(body) <= ONE_WRITE_BYTES else io.BytesIO(body)
            async with self._opened().post(f"{self.url}/responses", data=data) as response:
                await _check(response)
                if response.connection is not None:
                    use_small_reads(response.connection.transport)
                async for chunk in response.content.iter_any():
                    for frame in decoder.feed(chunk):
                        if frame.data == DONE_DATA or is_over:
                            continue  # read on to the end: only then is the connection reusable
                        event: Event = orjson.loads(frame.data)
                        kind = event.get("type")
                        if kind == "error":
                            refusal = api_error_from_wire(event, status=500)
                            continue
                        is_over = kind in TERMINAL_TYPES
                        yield event
        except (aiohttp.ClientError, OSError, ValueError, AttributeError) as error:
            if not is_over:
                raise TransportError(f"the stream from {self.url} broke: {error!r}") from error
        except RemoteProtocolError as error:
            raise TransportError(f"{self.url} sent no event stream: {error}") from error
        if refusal is not None and not is_over:
            raise refusal
        if not is_over:
            raise TransportError(f"{self.url} ended the stream before the response was over")

    async def close(self) -> None:
        """Close the pooled connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                force_close=not self._reuse_connection,
                keepalive_timeout=KEEP_ALIVE_S if self._reuse_connection else None,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            )
        return self._session


async def _check(response: aiohttp.ClientResponse) -> None:
    """Raise ``ApiError`` for an HTTP error, whatever its body is."""
    if response.status < 400:
        return
    body = await response.content.read(64 * MAX_MESSAGE_CHARS)
    try:
        payload: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body[:MAX_MESSAGE_CHARS].decode("utf-8", "replace").strip()
        payload = {"message": text or f"HTTP status {response.status} without a body"}
    raise api_error_from_wire(
        payload, status=response.status, retry_after_s=_retry_after_s(response.headers)
    )


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    try:
        return float(headers["Retry-After"])
    except (KeyError, ValueError):
        return None
