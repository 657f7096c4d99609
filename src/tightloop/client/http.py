"""The Responses API over HTTP: one POST a response, answered by server-sent events.

The connection is kept for ten minutes between responses, longer than tools usually run, because a
new one costs several network round trips. ``reuse_connection=False`` opens one per request: the
classic baseline that benchmarks compare with.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import aiohttp
import orjson

from tightloop.client.event_stream import read_events
from tightloop.client.http_pool import HttpPool, check_status
from tightloop.client.json_body import JsonBody
from tightloop.client.reasons import reason_of
from tightloop.client.resuming import resumed_events
from tightloop.client.transport import Event, TransportError
from tightloop.protocol.errors import ApiError


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

    def stream(self, request: dict[str, Any]) -> AsyncGenerator[Event, None]:
        """See ``Transport.stream``; closing the iterator early drops the connection."""
        body = JsonBody(orjson.dumps({**request, "stream": True}))
        url = f"{self.url}/responses"
        return read_events(lambda: self._pool.session.post(url, data=body), self.url, self._note)

    def resume(self, response_id: str, after: int) -> AsyncGenerator[Event, None]:
        """See ``ResumingTransport.resume``."""
        return resumed_events(self._session_again, self.url, response_id, after)

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._pool.close()

    def _session_again(self) -> aiohttp.ClientSession:
        if not self._pool.is_open:
            raise TransportError(f"{self.url}: the transport was closed")
        return self._pool.session

    def _note(self, answer: aiohttp.ClientResponse) -> None:
        self.answer_headers = answer.headers
