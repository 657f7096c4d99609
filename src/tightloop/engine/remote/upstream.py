"""How bytes reach a host: one interface, an implementation for each version of HTTP beside it.

``http1.py`` is a pool of connections, ``http2.py`` one connection with many streams. Nothing here
knows what the bytes mean.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Protocol

import aiohappyeyeballs

from tightloop.engine.interface import EngineError

KEEP_ALIVE_S: Final = 600.0
"""A tool may run that long between two requests."""

CONNECT_TIMEOUT_S: Final = 10.0
SILENCE_TIMEOUT_S: Final = 600.0

NEXT_ADDRESS_S: Final = 0.25
"""A host's next address is tried after this, besides those that are being tried. Source: RFC 8305."""


class UpstreamError(Exception):
    """The connection could not be made, or broke. ``TimeoutError`` is raised for silence instead."""


Take = Callable[[bytes], bool]
"""Is given each piece of a body, on the event loop; says whether it has enough."""


class Reply(Protocol):
    """A host's answer whose head has come. Ends in ``finish`` or ``close``."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]:
        """By lower-case name."""

    def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, one piece for all that one read brought.

        Raises ``UpstreamError`` when it breaks off, ``TimeoutError`` when nothing comes for too long.
        """

    async def pour(self, take: Take) -> None:
        """Hand each piece of the body to ``take`` until it has enough, or the body has ended.

        That happens within the call that brought the piece from the network: no task wakes for it.
        Raises what ``take`` raises, and as ``pieces``.
        """

    async def finish(self) -> None:
        """Read to the end, so that the connection can be used again; gives up after a second."""

    def close(self) -> None:
        """Stop the answer, if it has not ended. May be called twice."""


class Upstream(Protocol):
    """Connections to one host, kept for ten minutes between requests."""

    async def warm(self, num: int, path: str) -> list[Reply]:
        """``num`` connections are open, where the host can be reached; the replies to ``GET path``.

        They are unread. Raises nothing: the first request will say what is wrong.
        """

    async def get(self, path: str, headers: Mapping[str, str]) -> Reply:
        """The answer to a ``GET``."""

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The answer to a ``POST`` of JSON. Raises ``UpstreamError`` and ``TimeoutError``.

        A kept connection that turns out to be closed before any byte of an answer is replaced once.
        """

    async def close(self) -> None:
        """Every connection is closed. May be called twice."""


async def read_whole(reply: Reply, max_bytes: int) -> bytes:
    """The body up to ``max_bytes``: one piece is only what has arrived."""
    parts: list[bytes] = []
    num_bytes = 0
    async for part in reply.pieces():
        parts.append(part)
        num_bytes += len(part)
        if num_bytes >= max_bytes:
            break
    return b"".join(parts)[:max_bytes]


async def dial(
    host: str, port: int, socket_factory: Callable[[tuple[Any, ...]], socket.socket]
) -> socket.socket:
    """A socket that is connected to the first of the host's addresses to answer. Raises ``OSError``.

    ``socket_factory`` makes one for an address (as ``getaddrinfo`` gives it), e.g. ``open_socket``.
    """
    return await aiohappyeyeballs.start_connection(
        await _addresses(host, port),
        happy_eyeballs_delay=NEXT_ADDRESS_S,
        interleave=1,
        socket_factory=socket_factory,
    )


async def _addresses(host: str, port: int) -> list[Any]:
    kind = socket.SOCK_STREAM
    try:  # of an address itself: no name server is asked, so no thread is needed
        return socket.getaddrinfo(host, port, type=kind, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=kind)


def open_socket(address: tuple[Any, ...], congestion: str = "") -> socket.socket:
    """A socket for ``address`` (as ``getaddrinfo`` gives it), set up before it is connected.

    Small writes go out at once, and the kernel notices a peer that has vanished. ``congestion`` names
    its congestion control. Raises ``EngineError`` when the kernel has none of that name.
    """
    family, kind, proto = address[:3]
    made = socket.socket(family, kind, proto)
    made.setblocking(False)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return made
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if congestion:
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        except OSError as error:
            made.close()
            raise EngineError(
                f"this machine has no congestion control {congestion!r} for us ({error}); choose one"
                " of net.ipv4.tcp_allowed_congestion_control",
                code="invalid_value",
            ) from error
    return made
