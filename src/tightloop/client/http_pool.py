"""A client's HTTP connections: kept for ten minutes, or a new one for each request."""

import re
from collections.abc import Mapping
from typing import Final

import aiohttp
import orjson

from tightloop.protocol.errors import MAX_MESSAGE_CHARS, api_error_from_wire

KEEP_ALIVE_S: Final = 600.0
CONNECT_TIMEOUT_S: Final = 15.0
MAX_PAGE_CHARS: Final = 200
_TAGS: Final = re.compile(r"<[^>]*>")


class HttpPool:
    """Opened at first use, for requests with a JSON body that are answered by an event stream."""

    def __init__(self, api_key: str | None, *, reuse_connection: bool) -> None:
        self.reuses_connection = reuse_connection
        self._headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._session: aiohttp.ClientSession | None = None

    @property
    def is_open(self) -> bool:
        """Whether it was used since it was made or closed."""
        return self._session is not None

    @property
    def session(self) -> aiohttp.ClientSession:
        """What requests are made with."""
        if self._session is None:
            connector = aiohttp.TCPConnector(
                force_close=not self.reuses_connection,
                keepalive_timeout=KEEP_ALIVE_S if self.reuses_connection else None,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            )
        return self._session

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def check_status(response: aiohttp.ClientResponse) -> None:
    """Raise ``ApiError`` for an HTTP error, whatever its body is."""
    if response.status < 400:
        return
    body = await response.content.read(64 * MAX_MESSAGE_CHARS)
    try:
        payload: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        payload = {"message": _told(response, body)}
    raise api_error_from_wire(
        payload, status=response.status, retry_after_s=_retry_after_s(response.headers)
    )


def _told(response: aiohttp.ClientResponse, body: bytes) -> str:
    """What a body says that is no JSON."""
    text = body[:MAX_MESSAGE_CHARS].decode("utf-8", "replace").strip()
    if text.startswith("<"):
        page = " ".join(_TAGS.sub(" ", text).split())[:MAX_PAGE_CHARS]
        return (
            f"{response.url} answered {response.status} with a web page, as no API does ({page});"
            " check the address and its path"
        )
    return text or f"HTTP status {response.status} without a body"


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    try:
        return float(headers["Retry-After"])
    except (KeyError, ValueError):
        return None
