"""The Responses API inside one process, with the same protocol bytes as on a WebSocket.

``client`` knows nothing of servers: it defines the ``Endpoint`` that ``tightloop.server`` (or a
test) implements, and a caller above both puts them together.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Protocol

import orjson

from tightloop.client.inbox import Switchboard
from tightloop.client.transport import Event, TransportError

Receiver = Callable[[Sequence[bytes]], None]
"""Called on the event loop with each batch of server events, one JSON object each."""


class Connection(Protocol):
    """One connection to an endpoint; unstored responses live as long as it does."""

    @property
    def capabilities(self) -> frozenset[str]:
        """Names of the extensions that the endpoint offers."""

    def send(self, frame: bytes) -> None:
        """Hand over one client event (JSON), e.g. ``{"type": "response.create", ...}``."""

    def close(self) -> None:
        """End the connection; running responses are cancelled. May be called twice."""


class Endpoint(Protocol):
    """A Responses endpoint in this process."""

    def open(self, receive: Receiver) -> Connection:
        """A new connection whose events go to ``receive``."""


class InMemoryTransport:
    """``Transport`` to an ``Endpoint``."""

    supports_continuation = True

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._connection: Connection | None = None
        self._switchboard = Switchboard("in memory")

    async def connect(self) -> None:
        """Open the connection unless it is open."""
        if self._connection is None:
            self._connection = self._endpoint.open(self._receive)

    async def stream(self, request: dict[str, Any]) -> AsyncGenerator[Event, None]:
        """See ``Transport.stream``."""
        await self.connect()
        inbox, frame = self._switchboard.open(request)
        try:
            self._send(frame)
            while (event := await inbox.get()) is not None:
                yield event
        finally:
            farewell = self._switchboard.leave(inbox)
            if farewell is not None and self._connection is not None:
                self._send(farewell)

    @property
    def capabilities(self) -> frozenset[str]:
        """See ``HintingTransport.capabilities``."""
        return self._connection.capabilities if self._connection is not None else frozenset()

    def hint(self, event: Event) -> bool:
        """See ``HintingTransport.hint``."""
        if self._connection is None:
            return False
        self._connection.send(orjson.dumps(event))
        return True

    async def close(self) -> None:
        """End the connection; responses still running end in ``TransportError``."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._switchboard.lose(TransportError("the in-memory connection was closed"))

    def _send(self, frame: bytes) -> None:
        if self._connection is None:
            raise TransportError("the in-memory connection was closed")
        self._connection.send(frame)

    def _receive(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            self._switchboard.receive(frame)
