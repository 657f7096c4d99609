"""One response, from a checked request to its terminal event.

The way of a token: the engine hands a batch to the event loop, ``_receive`` turns it into events,
the journal writes them as one buffer in the same call. There is no coroutine, queue, task or log call
per token. Whatever the next byte does not need comes after it: the node, the store, the figures.

A response with ``store: true`` is on disk before its terminal event is written; everything else of
it, the last ``output_item.done`` included, has been sent by then, so that tools start early.

A response does not end with its connection: without a reader it is an orphan, which goes on for a
while so that its reader can come back (``GET /v1/responses/{id}?stream=true``).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Final

import msgspec

from tightloop.engine.interface import Generation, GenerationRequest, Node
from tightloop.protocol.deltas import Delta, Finished, FinishReason, Usage
from tightloop.protocol.errors import from_validation_error
from tightloop.protocol.items import Item
from tightloop.protocol.outgoing import MakeStream, OutgoingStream
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.response_stream import Cancellation, ResponseStream
from tightloop.protocol.tools import Tool
from tightloop.server.backstage import Backstage, Phase
from tightloop.server.compacting import asks_for_compaction
from tightloop.server.conversation_book import Hold
from tightloop.server.conversations import Record, tools_among
from tightloop.server.diagnostics import diagnose
from tightloop.server.fitting import Length, context_window, setup_of
from tightloop.server.generating import (
    check_request,
    check_tool_choice,
    generate,
    generation_request,
)
from tightloop.server.new_records import end_of_turn, new_chain, new_link
from tightloop.server.standing import Standing, standing
from tightloop.server.store import StoreError
from tightloop.server.streams import Journal, Write
from tightloop.server.timing import codex_metrics, figures, route
from tightloop.trace import clock

_log = logging.getLogger(__name__)

_RUNNING: Final = Phase.RUNNING
"""For the way of a token: a look into an enumeration is a search through its class each time."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a turn is told to its client.

    ``resumes``: it can be read again by its id. ``codex_timing``: the client turns
    ``responsesapi.websocket_timing`` into metrics of its own. ``client`` is the same for all requests of
    one client (``access.client_of``); ``resent`` as in ``dialect.Dialect``.
    """

    make_stream: MakeStream = ResponseStream
    resumes: bool = True
    codex_timing: bool = False
    client: str = ""
    resent: Callable[[Sequence[Item]], Sequence[Item]] | None = None


PLAIN = Manner()


class Turn:
    """One response being made. ``ended`` is called once, after the terminal event was written."""

    def __init__(
        self,
        backstage: Backstage,
        request: ResponseRequest,
        write: Write | None,
        ended: Callable[["Turn"], None],
        *,
        receive_ns: int,
        manner: Manner = PLAIN,
    ) -> None:
        self.response_id = f"resp_{token_hex(16)}"
        self.request = request
        self.phase = Phase.WAITING
        self.record: Record | None = None
        """The node made, once the turn is over; None if it failed and cannot be a parent."""
        self.failure: tuple[str, str] | None = None
        """Code and message of a response that failed."""
        self.route: dict[str, str] | None = None
        """Which of several backends made it (``timing.route``), once it is over."""
        self.figures: dict[str, float] | None = None
        """Where its time went (``timing.figures``), once it is over and if the engine knows."""
        self.journal = Journal(self.response_id, self._abandoned, keeps=manner.resumes)
        self._backstage = backstage
        self._write = write
        self._ended = ended
        self._manner = manner
        self._parent: Record | None = None
        self._hold: Hold | None = None
        self._standing: Standing | None = None
        self._tools: tuple[Tool, ...] = ()
        self._setup: bytes | None = None
        self._length = Length()
        self._cancellation: Cancellation | None = None
        self._stream: OutgoingStream | None = None
        self._generation: Generation | None = None
        self._unsent: list[bytes] = []
        self._grace: asyncio.TimerHandle | None = None
        self._receive_ns = receive_ns
        self._written_ns = 0

    # ------------------------------------------------------------------ from the transport

    def begin(self, parent: Record | None, hold: Hold | None = None) -> None:
        """Start generating below ``parent``. Raises ``ApiError`` before anything was written.

        ``hold`` is that of the conversation which the response becomes a part of. It is released
        when the turn is over, also when it is refused here.
        """
        self._hold = hold
        try:
            self._begin(parent)
        except BaseException:
            self._release()
            raise

    def _begin(self, parent: Record | None) -> None:
        request = self.request
        place = standing(self._backstage.histories, request, parent, self._manner.client)
        check_request(self._backstage.engine, request, place.above, place.first)
        self._standing = place
        self._tools = place.tools + tools_among(request.input, place.first)
        if self._tools:
            request = msgspec.structs.replace(request, tools=request.tools + self._tools)
        check_tool_choice(request)
        self._parent = parent
        self._start_stream(request)
        self.phase = Phase.RUNNING
        self._open_journal()
        if self._cancellation is not None:
            self._finish(Finished(FinishReason.CANCELLED, Usage()))
            return
        generation = generation_request(self.response_id, request, place.above, place.first)
        if request.generate:
            self._submit(generation)
        else:
            self._prewarm(generation)

    def cancel(self, cancellation: Cancellation = Cancellation.INTERRUPTED) -> None:
        """Ask for an early end; the first one who asks says how it ends, but for a steer.

        A turn that has not begun says so when its time comes: the events of a lane stay in order.
        """
        if not self.is_stopped:
            self._cancellation = cancellation
        if self._generation is not None:
            # Not at once: an engine may only have scheduled the start of what this would end.
            asyncio.get_running_loop().call_soon(self._generation.cancel)

    def leave(self, *, is_goodbye: bool) -> None:
        """The transport that asked is gone: for good, or it may come back for its response."""
        if is_goodbye or not self._manner.resumes:
            if self.phase is not Phase.OVER:  # a prewarm reads on after its answer
                self.cancel()
            self._unread()
        elif self._write is not None:
            self.journal.leave(self._write)

    def resume(self, write: Write, after: int) -> None:
        """Write the events numbered above ``after`` to another reader."""
        self._end_grace()
        self.journal.read(write, after)

    def aside(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Send an event beside the response's own order; after its end to its own client only."""
        assert self._stream is not None
        event = self._stream.aside(kind, fields)
        if self.phase is not Phase.OVER:
            self._send([event])
        elif self._write is not None:
            self._write([event])

    @property
    def num_calls(self) -> int:
        """Tool calls put out so far, an open one included."""
        return self._stream.num_calls if self._stream is not None else 0

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody asked for an early end."""
        return self._cancellation is not None

    @property
    def is_stopped(self) -> bool:
        """As ``is_cancelled``, and not because another message is to be answered instead."""
        return self._cancellation not in (None, Cancellation.STEERED)

    def snapshot(self) -> bytes:
        """JSON of the Response object (or the dialect's) as it is now."""
        assert self._stream is not None
        return self._stream.snapshot()

    # ------------------------------------------------------------------ readers

    def _open_journal(self) -> None:
        backstage = self._backstage
        backstage.supersede(self.request)
        backstage.running[self.response_id] = self
        if self._manner.resumes:
            backstage.streams.add(self.journal)
        if self._write is not None:
            self.journal.read(self._write)

    def _unread(self) -> None:
        if self._write is not None:
            self.journal.leave(self._write)
            self._write = None

    def _abandoned(self) -> None:
        """The last reader has gone. Responses of the background never had to have one."""
        is_free = self.request.background or self.is_cancelled or self._grace is not None
        if is_free or self.phase is not Phase.RUNNING:
            return
        self._backstage.orphans.add(self)
        loop = asyncio.get_running_loop()
        self._grace = loop.call_later(self._backstage.resume_grace_s, self.cancel)

    def _end_grace(self) -> None:
        self._backstage.orphans.discard(self)
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    # ------------------------------------------------------------------ to the engine

    def _start_stream(self, request: ResponseRequest) -> None:
        suffix = self.response_id[5:21]
        numbers = iter(range(1 << 30))
        try:
            self._stream = self._manner.make_stream(
                self.response_id,
                request,
                created_at=clock.unix_s(),
                new_id=lambda prefix: f"{prefix}_{suffix}{next(numbers):02x}",
            )
            self._unsent = self._stream.start()
        except RecursionError as error:  # what could just be decoded may not be encodable here
            raise from_validation_error(error) from error

    def _submit(self, request: GenerationRequest) -> None:
        backstage = self._backstage
        try:
            self._measure(request)
            self._generation = generate(
                backstage.engine, self.request, request, self._receive, self._length
            )
        except Exception as error:  # noqa: BLE001 - a broken engine ends this response only
            self._break_off(error)
            return
        if self.phase is Phase.RUNNING:
            self._send([])  # response.created; the engine is already at work
            backstage.heartbeats.add(self)

    def _measure(self, request: GenerationRequest) -> None:
        """Say what is known of the prompt's length, where the client cares for it."""
        asked = self.request
        if self._standing is not None and (asked.compact_threshold or asked.truncates):
            self._setup = setup_of(request)
            self._length.at_most = self._standing.most_tokens(asked, self._setup)

    def _prewarm(self, request: GenerationRequest) -> None:
        """Answer at once; the engine fills its cache while the client prepares its first turn.

        Clients wait for this answer before they send anything else, so it must not wait for what
        the engine does. Nothing was computed yet, so the usage is zero. The engine is asked first
        only because the end of this turn may start the next one of its lane.
        """
        try:
            self._generation = self._backstage.engine.submit(request, _ignore)
        except Exception:  # noqa: BLE001 - a hint that fails changes no result
            _log.exception("the engine refused to prefill %s", self.response_id)
        self._finish(Finished(FinishReason.STOP, Usage()))

    # ------------------------------------------------------------------ from the engine

    def _receive(self, deltas: Sequence[Delta]) -> None:
        """The engine's sink."""
        if self.phase is not _RUNNING or self._stream is None or not deltas:
            return
        last = deltas[-1]
        try:
            if type(last) is not Finished:  # isinstance costs five times that, for each token
                self._send(self._stream.feed(deltas))
            else:
                # Kept apart: they are numbered, and must leave also if this end is refused.
                self._unsent += self._stream.feed(deltas[:-1])
                self._finish(last)
        except Exception as error:  # noqa: BLE001 - an engine out of order ends this response only
            self._break_off(error)

    def _send(self, events: list[bytes]) -> None:
        if self._unsent:
            events, self._unsent = self._unsent + events, []
        if not events:
            return
        self.journal.append(events)
        self._written_ns = self._backstage.now_ns()

    def beat_after(self, silence_s: float) -> None:
        """Repeat ``response.in_progress`` when nothing was sent for a while (``Heartbeats``)."""
        if self.phase is not Phase.RUNNING or self._stream is None:
            return
        if self._backstage.now_ns() - self._written_ns >= silence_s * 1e9:
            self._send(self._stream.heartbeat())

    # ------------------------------------------------------------------ the end

    def _finish(self, finished: Finished) -> None:
        if self._stream is None:
            return
        if finished.reason is FinishReason.ERROR:
            code = finished.error_code or "server_error"
            self.failure = (code, finished.error_message or "generation failed")
        closing = self._stream.finish(
            finished,
            self._timing(finished),
            completed_at=clock.unix_s(),
            cancellation=self._cancellation or Cancellation.INTERRUPTED,
            extra=self._extra(finished),
        )
        self._close(closing, finished.reason)

    def _extra(self, finished: Finished) -> dict[str, Any]:
        """Fields of the Response object beyond those that every response has."""
        extra: dict[str, Any] = {}
        if self.request.service_tier is not None or finished.service_tier is not None:
            extra["service_tier"] = finished.service_tier or "default"  # what was used, not asked
        is_interrupted = finished.reason is FinishReason.CANCELLED
        if is_interrupted and self._cancellation is Cancellation.DISCARDED:
            extra["end_turn"] = False  # what Codex expects after its ``response.interrupt``
        if self.request.compared_with is not None and self._stream is not None:
            output = self._stream.output_items
            found = diagnose(self.request, self._compared(), finished.usage, output)
            if found is not None:
                extra["prompt_cache_diagnostics"] = found
        return extra

    def _compared(self) -> Record | None:
        """The response whose prompt cache the client asks about."""
        name, parent = self.request.compared_with, self._parent
        if not name or (parent is not None and parent.node.id == name):
            return parent
        return self._backstage.conversations.recall(name)

    def _timing(self, finished: Finished) -> list[tuple[str, dict[str, Any]]]:
        """The events that tell where the time went, to those who asked."""
        self.route = route(finished)
        if finished.timing is None:
            return []
        found = figures(
            finished.timing, receive_ns=self._receive_ns, now_ns=self._backstage.now_ns()
        )
        self.figures = found
        events: list[tuple[str, dict[str, Any]]] = []
        if self.request.wants_timing:
            own: dict[str, Any] = {"response_id": self.response_id, "timing": found}
            if self.route is not None:
                own["route"] = self.route
            events.append(("tightloop:timing", own))
        if self._manner.codex_timing:
            metrics = {"timing_metrics": codex_metrics(found)}
            events.append(("responsesapi.websocket_timing", metrics))
        return events

    def _break_off(self, error: Exception) -> None:
        _log.error("response %s failed: %r", self.response_id, error, exc_info=error)
        if self._generation is not None:
            self._generation.cancel()
        if self._stream is not None:
            self.failure = ("server_error", f"the engine failed: {error}")
            self._close(self._stream.fail(*self.failure), FinishReason.ERROR)

    def _close(self, events: list[bytes], reason: FinishReason) -> None:
        """Send the last events; the terminal one only once the promise to store is kept."""
        stream = self._stream
        if stream is None:
            return
        if reason is not FinishReason.ERROR:
            self.record = self._made(stream)
            if self.request.store or self._hold is not None:
                self.phase = Phase.COMMITTING
                *before, terminal = events
                self._send(before)
                commit = self._commit(self.record, stream, terminal)
                task = asyncio.get_running_loop().create_task(commit)
                self._backstage.commits.add(task)
                task.add_done_callback(self._backstage.commits.discard)
                return
        self._send(events)
        self._over()

    def _made(self, stream: OutgoingStream) -> Record:
        """The node that this response is, from now on a parent."""
        usage = stream.usage or Usage()
        node = Node(self.response_id, None, stream.output_items, usage)
        if asks_for_compaction(self.request):
            window = context_window(self._backstage.engine, self.request.model)
            return new_chain(self.request, self._parent, self._tools, node, window)
        return new_link(self.request, self._parent, self._tools, node, self._standing)

    def _remember(self, record: Record) -> None:
        """Its client may come back with all that was said, instead of its id."""
        if self._standing is None or asks_for_compaction(self.request):
            return
        manner = self._manner
        record.known = end_of_turn(
            record,
            self.request,
            self._standing,
            manner.client,
            setup=self._setup,
            num_tokens=self._length.at_most,
            resent=manner.resent,
        )
        if record.known is not None:
            self._backstage.histories.add(record.known)

    async def _commit(self, record: Record, stream: OutgoingStream, terminal: bytes) -> None:
        is_streamed = self._manner.resumes and (self.request.stream or self.request.background)
        events = [*self.journal.events(), terminal] if is_streamed else None
        try:
            await self._keep(record, stream.snapshot(), events)
        except StoreError as error:
            _log.error("response %s was not stored: %s", self.response_id, error)
            terminal = self._take_back(stream, "store_failed", str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must see an end
            _log.exception("response %s was not stored", self.response_id)
            terminal = self._take_back(
                stream, "server_error", f"not stored: {type(error).__name__}"
            )
        self._send([terminal])
        self._over()

    async def _keep(self, record: Record, body: bytes, events: list[bytes] | None) -> None:
        """Make durable what was promised: the response, the conversation it is in, or both."""
        is_stored = self.request.store
        if self._hold is not None and self.request.generate:
            own = (body, events) if is_stored else (None, None)
            await self._hold.append(record, *own)
        elif is_stored:
            await self._backstage.conversations.commit(record, body, events)

    def _release(self) -> None:
        if self._hold is not None:
            self._hold.release()

    def _take_back(self, stream: OutgoingStream, code: str, message: str) -> bytes:
        """The terminal event of a response whose end could not be made durable."""
        self.record = None
        self.failure = (code, message)
        return stream.take_back(code, message)

    def _over(self) -> None:
        self.phase = Phase.OVER
        if self.record is not None:
            self._remember(self.record)
        self._backstage.heartbeats.remove(self)
        self._end_grace()
        self._release()  # in the tick of the terminal event: the next turn may come at once
        self.journal.end()
        self._backstage.leave(self)
        status = self._stream.status if self._stream is not None else "refused"
        _log.info("%s %s, parent %s", self.response_id, status, self.request.previous_response_id)
        self._ended(self)


def _ignore(_deltas: Sequence[Delta]) -> None:
    """A prefill has no output."""
