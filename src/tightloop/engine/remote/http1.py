"""HTTP/1.1 to a host, by aiohttp."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import aiohttp
import aiohttp.abc
import aiohttp.payload

from tightloop.client.reads import use_small_reads
from tightloop.engine.interface import EngineError
from tightloop.engine.remote.upstream import (
    CONNECT_TIMEOUT_S,
    KEEP_ALIVE_S,
    SILENCE_TIMEOUT_S,
    Reply,
    UpstreamError,
    open_socket,
)

PART_BYTES: Final = 256 << 10
"""A larger body is written in parts of this size."""

_DRAIN_TIMEOUT_S: Final = 1.0

SocketFactory = Callable[[Any], Any]


class Http1Upstream:
    """See ``upstream.Upstream``. ``socket_factory`` makes a socket for an address."""

    def __init__(
        self,
        base_url: str,
        headers: Callable[[], Mapping[str, str]],
        *,
        ssl_context: ssl.SSLContext | None = None,
        congestion: str = "",
        socket_factory: SocketFactory | None = None,
    ) -> None:
        self._base_url = base_url
        self._headers = headers
        self._ssl = ssl_context
        self._socket_factory = socket_factory or (lambda address: open_socket(address, congestion))
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    async def warm(self, num: int, path: str) -> list[Reply]:
        """See ``Upstream.warm``: requests at the same time cannot share a connection."""
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._try_get(path)) for _ in range(num)]
        return [reply for task in asked if (reply := task.result()) is not None]

    async def get(self, path: str, headers: Mapping[str, str]) -> "Http1Reply":
        """See ``Upstream.get``."""
        try:
            response = await self._opened().get(
                f"{self._base_url}{path}",
                headers={**self._headers(), **headers},
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            raise _mapped(error) from error
        return Http1Reply(response)

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> "Http1Reply":
        """See ``Upstream.post``."""
        try:
            try:
                return await self._post(path, body, headers)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                if isinstance(error, aiohttp.ClientConnectorError):
                    raise
                return await self._post(path, body, headers)
        except (aiohttp.ClientError, OSError) as error:
            raise _mapped(error) from error

    async def close(self) -> None:
        """See ``Upstream.close``."""
        self._is_closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _try_get(self, path: str) -> "Http1Reply | None":
        try:
            return await self.get(path, {})
        except (UpstreamError, TimeoutError, EngineError):
            return None  # the first request will say what is wrong

    async def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> "Http1Reply":
        data = body if len(body) <= PART_BYTES else _Parts(body)
        sent = {"Content-Type": "application/json", **self._headers(), **headers}
        # A conversation goes to the host that was named and to no other.
        response = await self._opened().post(
            f"{self._base_url}{path}", data=data, headers=sent, allow_redirects=False
        )
        return Http1Reply(response)

    def _opened(self) -> aiohttp.ClientSession:
        if self._is_closed:
            raise EngineError("the engine has been closed", code="engine_unavailable")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    keepalive_timeout=KEEP_ALIVE_S,
                    ssl=True if self._ssl is None else self._ssl,
                    socket_factory=self._socket_factory,
                ),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S
                ),
                read_bufsize=1 << 20,
            )
        return self._session


def _mapped(error: Exception) -> Exception:
    if isinstance(error, TimeoutError):
        return TimeoutError(str(error))
    is_clear = isinstance(error, aiohttp.ClientConnectorError)
    return UpstreamError(str(error) if is_clear else repr(error))


class _Parts(aiohttp.payload.Payload):
    """A body written from where it is; a file-like one is copied whole first (7 ms for 1.2 MB)."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body, content_type="application/json")
        self._size = len(body)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """See ``Payload.decode``."""
        return bytes(self._value).decode(encoding, errors)

    async def write(self, writer: aiohttp.abc.AbstractStreamWriter) -> None:
        """See ``Payload.write``."""
        view = memoryview(self._value)
        for start in range(0, len(view), PART_BYTES):
            await writer.write(view[start : start + PART_BYTES])


class Http1Reply:
    """See ``upstream.Reply``."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self._response = response
        if response.connection is not None:
            use_small_reads(response.connection.transport)

    async def pieces(self) -> AsyncIterator[bytes]:
        """See ``Reply.pieces``."""
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, OSError) as error:
            raise _mapped(error) from error

    async def finish(self) -> None:
        """See ``Reply.finish``."""
        try:
            async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                await self._response.content.read()
        except TimeoutError:
            return self.close()
        except (aiohttp.ClientError, OSError) as error:
            raise _mapped(error) from error
        self._response.release()
        return None

    def close(self) -> None:
        """See ``Reply.close``."""
        self._response.close()
