"""How requests reach a Responses endpoint: one interface, three implementations beside it.

``websocket.py`` (persistent socket), ``http.py`` (POST and server-sent events), and
``in_memory.py`` (same process, same protocol bytes). ``session.py`` adds continuation by
``previous_response_id`` on top of any of them.
"""

from collections.abc import AsyncGenerator
from typing import Any, Protocol, runtime_checkable

Event = dict[str, Any]
"""One decoded wire event, e.g. ``{"type": "response.output_text.delta", "delta": "x", ...}``."""


class Transport(Protocol):
    """A way to one server. Safe to use from one event loop only."""

    supports_continuation: bool
    """Whether the server side keeps unstored parents alive for this transport's lifetime."""

    async def connect(self) -> None:
        """Be connected. Free when it already is; raises ``TransportError`` naming the URL."""

    def stream(self, request: dict[str, Any]) -> AsyncGenerator[Event, None]:
        """Send one ``response.create`` body; its events in order, the terminal event last.

        The request dict is the JSON body without ``type`` and ``stream``. Closing the iterator
        early cancels the response. Raises ``ApiError`` when the server refuses the request, and
        ``TransportError`` when the connection fails before the terminal event.
        """

    async def close(self) -> None:
        """Release the connection. May be called twice."""


@runtime_checkable
class HintingTransport(Protocol):
    """A ``Transport`` that can also send events which nobody answers."""

    @property
    def capabilities(self) -> frozenset[str]:
        """Names of the extensions that the server offers; empty while not connected."""

    def hint(self, event: Event) -> bool:
        """Send ``event`` without waiting for anything; False when it could not go out at once.

        Never raises, and never holds up a request: what cannot be written now is not kept.
        """


@runtime_checkable
class ResumingTransport(Protocol):
    """A ``Transport`` that can read a response on after the connection that made it was lost."""

    def resume(self, response_id: str, after: int) -> AsyncGenerator[Event, None]:
        """The events numbered (``sequence_number``) above ``after``, those still to come included.

        Raises ``ApiError`` when the server does not have them, ``TransportError`` as ``stream``.
        Closing the iterator early leaves the response to its server, which ends it in time.
        """


class TransportError(Exception):
    """The connection could not be made, or broke before the terminal event."""
