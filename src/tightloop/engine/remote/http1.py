"""HTTP/1.1 to a host: a pool of connections, each a ``Line``.

Environment variables that name a proxy are not read, redirects are not followed, and no cookies are kept.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from tightloop import __version__
from tightloop.client.reads import use_small_reads
from tightloop.engine.interface import EngineError
from tightloop.engine.remote.http1_line import Http1Reply, Line, UnansweredError
from tightloop.engine.remote.upstream import (
    CONNECT_TIMEOUT_S,
    KEEP_ALIVE_S,
    SILENCE_TIMEOUT_S,
    Reply,
    UpstreamError,
    dial,
    open_socket,
)

SocketFactory = Callable[[Any], Any]

_PORTS: Final = {"http": 80, "https": 443}
_PATH_CHARS: Final = "/%:@!$&'()*+,;=~"
_FORBIDDEN: Final = frozenset("\r\n\0")


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
        silence_s: float = SILENCE_TIMEOUT_S,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        parts = urlsplit(base_url)
        self._is_tls = parts.scheme == "https"
        self._host = _ascii_name(parts.hostname or "")
        self._port = parts.port or _PORTS[parts.scheme]
        self._root = quote(parts.path, safe=_PATH_CHARS)
        self._fixed = {
            "Host": _authority(self._host, self._port, parts.scheme),
            "Accept": "*/*",
            "Accept-Encoding": "identity",  # saying nothing would allow any
            "User-Agent": f"tightloop/{__version__}",
        }
        self._headers = headers
        self._ssl = ssl_context
        self._socket_factory = socket_factory or (lambda address: open_socket(address, congestion))
        self._silence_s = silence_s
        self._keep_alive_s = keep_alive_s
        self._lines: set[Line] = set()
        self._free: list[Line] = []  # the one that was used last at the end
        self._is_closed = False

    async def warm(self, num: int, path: str) -> list[Reply]:
        """See ``Upstream.warm``: requests at the same time cannot share a connection."""
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._try_get(path)) for _ in range(num)]
        return [reply for task in asked if (reply := task.result()) is not None]

    async def get(self, path: str, headers: Mapping[str, str]) -> Http1Reply:
        """See ``Upstream.get``."""
        return await self._ask("GET", path, b"", {**self._headers(), **headers})

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Http1Reply:
        """See ``Upstream.post``."""
        fields = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **self._headers(),
            **headers,
        }
        return await self._ask("POST", path, body, fields)

    def head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        """A request's head. Raises ``EngineError``."""
        return encode_head(method, f"{self._root}{path}", {**self._fixed, **headers})

    async def close(self) -> None:
        """See ``Upstream.close``."""
        self._is_closed = True
        self._free.clear()
        lines = list(self._lines)
        for line in lines:
            line.abort()
        for line in lines:
            await line.lost.wait()

    async def _try_get(self, path: str) -> Http1Reply | None:
        try:
            return await self.get(path, {})
        except (UpstreamError, TimeoutError, EngineError):
            return None  # the first request will say what is wrong

    async def _ask(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Http1Reply:
        if self._is_closed:
            raise EngineError("the engine has been closed", code="engine_unavailable")
        head = self.head(method, path, headers)
        kept = self._kept_line()
        if kept is not None:
            try:
                return await kept.ask(head, body)
            except UnansweredError:
                pass  # the host had closed it. Once more, on one that cannot be as old
        return await (await self._connect()).ask(head, body)

    def _kept_line(self) -> Line | None:
        while self._free:
            line = self._free.pop()
            if line.is_usable:
                return line
        return None

    def _keep(self, line: Line) -> None:
        if self._is_closed:
            line.abort()
        else:
            self._free.append(line)

    def _forget(self, line: Line) -> None:
        self._lines.discard(line)
        if line in self._free:
            self._free.remove(line)

    async def _connect(self) -> Line:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                line = await self._opened()
        except TimeoutError as error:
            raise TimeoutError(f"{self._host}:{self._port} did not answer") from error
        except OSError as error:
            text = f"Cannot connect to {self._host}:{self._port}: {error}"
            raise UpstreamError(text) from error
        if not line.lost.is_set():
            self._lines.add(line)
        if self._is_closed:  # meanwhile
            await self.close()
            raise EngineError("the engine has been closed", code="engine_unavailable")
        return line

    async def _opened(self) -> Line:
        loop = asyncio.get_running_loop()
        made = await dial(self._host, self._port, self._socket_factory)
        transport, line = await loop.create_connection(
            lambda: Line(
                self._keep,
                self._forget,
                silence_s=self._silence_s,
                keep_alive_s=self._keep_alive_s,
            ),
            sock=made,
            ssl=self._context() if self._is_tls else None,
            server_hostname=self._host if self._is_tls else None,
        )
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            transport.abort()
            raise ConnectionError("it speaks HTTP/2, which was not to be used")
        use_small_reads(transport)
        return line

    def _context(self) -> ssl.SSLContext:
        if self._ssl is None:  # made late: it reads the system's certificates
            self._ssl = ssl.create_default_context()
            self._ssl.set_alpn_protocols(["http/1.1"])
        return self._ssl


def encode_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """A request's head, with the empty line after it. Raises ``EngineError`` for a broken line in it."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
    for line in lines:
        if not _FORBIDDEN.isdisjoint(line):
            name = line.partition(":")[0]
            raise EngineError(
                f"the header {name[:80]!r} cannot be sent: its value has a line break in it",
                code="invalid_value",
            )
    return "\r\n".join((*lines, "", "")).encode()


def _ascii_name(hostname: str) -> str:
    """As DNS and certificates have it. Raises ``EngineError`` for a name that is none there."""
    if hostname.isascii():
        return hostname
    try:
        return hostname.encode("idna").decode()
    except UnicodeError as error:
        raise EngineError(f"{hostname!r} is no name of a host", code="invalid_value") from error


def _authority(host: str, port: int, scheme: str) -> str:
    """What stands in ``Host``: the port only where it is not the usual one."""
    name = f"[{host}]" if ":" in host else host
    return name if port == _PORTS[scheme] else f"{name}:{port}"
