"""What turns an engine's deltas into the events of one dialect.

``ResponseStream`` is the Responses API's; the dialects have their own. A server drives all of them
in the same way: ``start``, then ``feed`` and ``heartbeat``, then one of ``finish`` and ``fail``.
Every list returned holds JSON texts, one per event, which belong into one write.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from tightloop.protocol.deltas import Delta, Finished, Usage
from tightloop.protocol.items import Item
from tightloop.protocol.response_stream import Cancellation, Timing


class OutgoingStream(Protocol):
    """The events of one response; see ``ResponseStream`` for what each method promises."""

    status: str
    """``queued``, ``in_progress``, then ``completed``, ``incomplete``, ``cancelled``, ``failed``."""

    usage: Usage | None

    @property
    def output_items(self) -> tuple[Item, ...]:
        """The items closed so far."""

    @property
    def num_calls(self) -> int:
        """Tool calls put out so far, an open one included."""

    @property
    def is_finished(self) -> bool:
        """Whether the last event was made."""

    def start(self) -> list[bytes]:
        """The events that can be sent before the engine has said anything."""

    def feed(self, deltas: Iterable[Delta]) -> list[bytes]:
        """The events of a batch without ``Finished``; LocalProtocolError for a wrong order."""

    def heartbeat(self) -> list[bytes]:
        """What may be sent in silence, so that a client's idle timer does not end the stream."""

    def finish(
        self,
        finished: Finished,
        timing: Timing | None = None,
        *,
        completed_at: int | None = None,
        cancellation: Cancellation = Cancellation.INTERRUPTED,
        extra: Mapping[str, Any] | None = None,
    ) -> list[bytes]:
        """The last events. Dialects without a place for ``timing`` or ``extra`` leave them out."""

    def fail(self, code: str, message: str, *, usage: Usage | None = None) -> list[bytes]:
        """The last events of a response that failed; starts the stream if need be."""

    def take_back(self, code: str, message: str) -> bytes:
        """A failure in place of the last event, which was made but not sent."""

    def aside(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        """An event beside the order."""

    def snapshot(self) -> bytes:
        """JSON of the whole answer as it is now; what a request without streaming gets."""


MakeStream = Callable[..., OutgoingStream]
"""Called as ``make(response_id, request, created_at=..., new_id=...)``; see ``ResponseStream``."""
