"""Sorts the frames of one connection to the responses that wait for them.

Shared by every transport whose frames are single JSON events (WebSocket, in memory). The server
answers the creates of one lane in order, so the first open inbox of a lane owns its events.

Deltas are most of what comes, often many at once, and say nothing about where they belong but their
lane. They are filed as they came and decoded when the consumer takes them, so that the first event of a
burst does not wait until the last one is decoded.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeGuard

import orjson

from tightloop.client.transport import Event, TransportError
from tightloop.protocol.accumulator import TERMINAL_TYPES
from tightloop.protocol.errors import api_error_from_wire

_DELTAS = tuple(
    b'{"type":"response.%b.delta",' % kind
    for kind in (
        b"output_text",
        b"function_call_arguments",
        b"custom_tool_call_input",
        b"reasoning_summary_text",
    )
)
MAX_UNREAD_BYTES: Final = 64 << 20
"""Of frames since the consumer last had all there was. A server cuts off slow readers there, too."""

_NOTHING_TO_END = frozenset({"response_not_active", "response_not_found"})
"""Codes of the answer to a cancel that crossed with the end of its response: it is no create's."""

_LANE = b'"stream_id"'


class Inbox:
    """The events of one response, in order, for one consumer."""

    def __init__(
        self, lane: str | None = None, broken: Callable[[bytes], TransportError] | None = None
    ) -> None:
        self.lane = lane
        self._broken = broken
        self.response_id: str | None = None
        self.is_abandoned = False
        self.is_ended = False
        self.error: Exception | None = None
        self._events: deque[Event | bytes] = deque()
        self._unread_bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def put(self, event: Event, num_bytes: int) -> None:
        """File one event; wakes the consumer once however many follow before it runs."""
        self._note(event)
        self._keep(event, num_bytes)

    def put_delta(self, frame: bytes) -> None:
        """File one event that neither begins nor ends the response; decoded when it is taken."""
        self._keep(frame, len(frame))

    def fail(self, error: Exception) -> None:
        """End with an error after the events already filed."""
        self.is_ended = True
        self.error = error
        self._wake()

    async def get(self) -> Event | None:
        """The next event, None after the terminal one; raises the error if it ended in one."""
        while not self._events:
            if self.error is not None:
                raise self.error
            if self.is_ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        event = self._events.popleft()
        if not self._events:
            self._unread_bytes = 0
        return self._decoded(event) if isinstance(event, bytes) else event

    def _keep(self, event: Event | bytes, num_bytes: int) -> None:
        if self.is_abandoned:
            return
        self._unread_bytes += num_bytes
        if self._unread_bytes > MAX_UNREAD_BYTES:
            self.is_abandoned = True
            text = f"the response was given up: nobody read {self._unread_bytes} bytes of it"
            self.error = TransportError(text)
            return
        self._events.append(event)
        self._wake()

    def _note(self, event: Event) -> None:
        kind = event["type"]
        if self.response_id is None and kind == "response.created":
            self.response_id = event["response"]["id"]
        if kind in TERMINAL_TYPES:
            self.is_ended = True

    def _decoded(self, frame: bytes) -> Event:
        try:
            event: Event = orjson.loads(frame)
        except orjson.JSONDecodeError as error:
            self._events.clear()
            text = f"a frame is no event: {frame[:80]!r}"
            raise (self._broken(frame) if self._broken else TransportError(text)) from error
        return event

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


Take = Callable[[list[Event]], bool]
"""Is given the events that one read brought; says whether it has enough."""


class Tap(Inbox):
    """The events of one response for a callback: within the read that brought them, without a task."""

    def __init__(self, lane: str | None, take: Take) -> None:
        super().__init__(lane)
        self._take = take
        self._has_enough = False
        self._read: list[Event] = []

    def put(self, event: Event, num_bytes: int) -> None:
        """See ``Inbox.put``; handed on by ``deliver``."""
        self._note(event)
        if not self.is_abandoned:
            self._read.append(event)

    def put_delta(self, frame: bytes) -> None:
        """See ``Inbox.put_delta``; decoded at once, since nobody waits for anything else meanwhile."""
        if not self.is_abandoned:
            self._read.append(orjson.loads(frame))

    def deliver(self) -> None:
        """Hand on what the read brought, and wake who waits for the end if this was it."""
        events, self._read = self._read, []
        if events and not self.is_abandoned and not self._has_enough:
            try:
                self._has_enough = self._take(events)
            except Exception as error:  # noqa: BLE001 - raised where the end is waited for
                self.give_up(error)
        if self._has_enough or self.is_ended:
            self._wake()

    def fail(self, error: Exception) -> None:
        """See ``Inbox.fail``."""
        super().fail(error)
        self.deliver()

    def give_up(self, error: Exception) -> None:
        """Take no more; ``wait`` raises ``error``, although the response goes on."""
        self._has_enough = True
        self.error = self.error or error
        self._wake()

    async def wait(self) -> None:
        """The callback has enough, or had all there was. Raises the error if it ended in one."""
        while not (self._has_enough or self.is_ended):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.error is not None:
            raise self.error


class Switchboard:
    """The open inboxes of one connection, by lane."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lanes: dict[str | None, deque[Inbox]] = {}
        self._taps: list[Tap] = []
        self._broken: TransportError | None = None
        self._has_cancelled = False

    @property
    def is_broken(self) -> bool:
        """Whether a frame was no event: nothing more can be received."""
        return self._broken is not None

    def open(self, request: dict[str, Any]) -> tuple[Inbox, bytes]:
        """The inbox of a new response, and the frame that asks for it."""
        inbox = Inbox(request.get("stream_id"), self._give_up)
        return inbox, self._opened(inbox, request)

    def tap(self, request: dict[str, Any], take: Take) -> tuple[Tap, bytes]:
        """As ``open``, for a callback."""
        tap = Tap(request.get("stream_id"), take)
        self._taps.append(tap)
        return tap, self._opened(tap, request)

    def _opened(self, inbox: Inbox, request: dict[str, Any]) -> bytes:
        self._lanes.setdefault(inbox.lane, deque()).append(inbox)
        return orjson.dumps({"type": "response.create", **request})

    def leave(self, inbox: Inbox) -> bytes | None:
        """The consumer is gone; the frame that cancels the response, if there is one to send.

        None when it has ended, and for a create that still waits behind another one of its lane:
        it has no id yet, and a cancel without an id would hit the one before it.
        """
        if isinstance(inbox, Tap):
            self._taps.remove(inbox)
        if inbox.is_ended:
            return None
        inbox.is_abandoned = True
        if inbox.response_id is None and self._lanes[inbox.lane][0] is not inbox:
            return None
        self._has_cancelled = True
        event: Event = {"type": "response.cancel"}
        if inbox.response_id is not None:
            event["response_id"] = inbox.response_id
        if inbox.lane is not None:
            event["stream_id"] = inbox.lane
        return orjson.dumps(event)

    def receive(self, frame: str | bytes) -> None:
        """File one frame. Raises ``TransportError`` when it is not an event.

        A delta that is none is found out by its consumer. Then every open response ends with the error,
        and the next frame raises it.
        """
        if self._broken is not None:
            raise self._broken
        try:
            if self._is_plain_delta(frame):
                inboxes = self._lanes.get(None)
                if inboxes:
                    inboxes[0].put_delta(frame)
                return
            event: Event = orjson.loads(frame)
            self._file(event, len(frame))
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise self._no_event(frame) from error

    def receive_all(self, frames: Iterable[bytes]) -> None:
        """File the frames that one read brought; as ``receive``, and callbacks are called."""
        try:
            for frame in frames:
                self.receive(frame)
        finally:  # what came before a fault is part of the answer
            for tap in self._taps:
                tap.deliver()

    def _file(self, event: Event, num_bytes: int) -> None:
        kind = event["type"]
        inboxes = self._lanes.get(event.get("stream_id"))
        if not inboxes:
            return  # about a response nobody waits for any more
        inbox = inboxes[0]
        if kind == "error":
            error = api_error_from_wire(event, status=500)
            if self._has_cancelled and error.code in _NOTHING_TO_END:
                return
            inbox.fail(error)
        else:
            inbox.put(event, num_bytes)
        if inbox.is_ended:
            inboxes.popleft()

    @staticmethod
    def _is_plain_delta(frame: str | bytes) -> TypeGuard[bytes]:
        """Whether it is a delta of the lane without a name, by its first bytes.

        The name of a lane could stand anywhere; in a text it would be written with a backslash.
        """
        return isinstance(frame, bytes) and frame.startswith(_DELTAS) and _LANE not in frame

    def _no_event(self, frame: str | bytes) -> TransportError:
        return TransportError(f"{self._url} sent a frame that is no event: {frame[:80]!r}")

    def _give_up(self, frame: bytes) -> TransportError:
        """Every open response ends as it would if the frame had been decoded when it came."""
        self._broken = self._no_event(frame)
        self.lose(self._broken)
        return self._broken

    def lose(self, error: TransportError) -> None:
        """End every open inbox: the connection is gone."""
        lanes, self._lanes = self._lanes, {}
        for inboxes in lanes.values():
            for inbox in inboxes:
                inbox.fail(error)
