"""The Responses API over HTTP: one POST a response, answered by server-sent events.

The connection is kept for ten minutes between responses, longer than tools usually run, because a
new one costs several network round trips. ``reuse_connection=False`` opens one per request: the
classic baseline that benchmarks compare with.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import aiohttp
import orjson

from tightloop.client.http_pool import HttpPool, check_status
from tightloop.client.json_body import JsonBody
from tightloop.client.reads import use_small_reads
from tightloop.client.reasons import reason_of
from tightloop.client.transport import Event, TransportError
from tightloop.protocol.accumulator import TERMINAL_TYPES
from tightloop.protocol.errors import (
    ApiError,
    RemoteProtocolError,
    api_error_from_wire,
)
from tightloop.protocol.sse import DONE_DATA, SseDecoder


class HttpTransport:
    """``Transport`` over ``POST {url}/responses``; ``url`` e.g. ``http://127.0.0.1:8099/v1``."""

    supports_continuation = False

    def __init__(
        self, url: str, api_key: str | None = None, *, reuse_connection: bool = True
    ) -> None:
        self.url = url.rstrip("/")
        self.answer_headers: Mapping[str, str] = {}
        """Of the last answer, for programs that measure."""

        self._pool = HttpPool(api_key, reuse_connection=reuse_connection)

    async def connect(self) -> None:
        """Have a warm connection in the pool; checks address and key with ``GET /models``."""
        if self._pool.is_open:
            return
        session = self._pool.session
        if self._pool.reuses_connection:
            try:
                async with session.get(f"{self.url}/models") as response:
                    await check_status(response)
                    await response.read()
            except (aiohttp.ClientError, OSError, ValueError) as error:
                await self.close()
                raise TransportError(f"cannot connect to {self.url}: {reason_of(error)}") from error
            except ApiError:
                await self.close()
                raise

    async def stream(self, request: dict[str, Any]) -> AsyncGenerator[Event, None]:
        """See ``Transport.stream``; closing the iterator early drops the connection."""
        body = JsonBody(orjson.dumps({**request, "stream": True}))
        decoder = SseDecoder()
        refusal: ApiError | None = None
        is_over = False
        try:
            async with self._pool.session.post(f"{self.url}/responses", data=body) as response:
                self.answer_headers = response.headers
                await check_status(response)
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
                raise TransportError(
                    f"the stream from {self.url} broke: {reason_of(error)}"
                ) from error
        except RemoteProtocolError as error:
            raise TransportError(f"{self.url} sent no event stream: {error}") from error
        if refusal is not None and not is_over:
            raise refusal
        if not is_over:
            raise TransportError(f"{self.url} ended the stream before the response was over")

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._pool.close()
