"""One response, from a checked request to its terminal event.

The way of a token: the engine hands a batch to the event loop, ``_receive`` turns it into events,
``write`` sends them as one buffer in the same call. There is no coroutine, queue, task or log call
per token. Whatever the next byte does not need comes after it: the node, the store, the figures.

A response with ``store: true`` is on disk before its terminal event is written; everything else of
it, the last ``output_item.done`` included, has been sent by then, so that tools start early.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from secrets import token_hex

import msgspec

from tightloop.engine.interface import Engine, Generation, GenerationRequest, Node, Sampling
from tightloop.protocol.deltas import Delta, EngineTiming, Finished, FinishReason, Usage
from tightloop.protocol.errors import ApiError, from_validation_error
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.response_stream import ResponseStream
from tightloop.protocol.tools import Tool
from tightloop.server.conversations import Conversations, Record, check_call_ids, context_tools
from tightloop.server.store import StoreError
from tightloop.trace import clock

HEARTBEAT_S = 5.0
"""Silence after which ``response.in_progress`` is repeated: clients' idle timers count events."""

Write = Callable[[Sequence[bytes]], None]
"""Takes the JSON of some events, in order; called on the event loop, never blocks or raises."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Backstage:
    """What every turn of a server needs, and which turns are under way."""

    engine: Engine
    conversations: Conversations
    heartbeat_s: float = HEARTBEAT_S
    now_ns: Callable[[], int] = clock.now_ns
    running: set["Turn"] = field(default_factory=set)
    commits: set[asyncio.Task[None]] = field(default_factory=set)
    """Commits under way; the store may be closed when they are done."""
    _idle: asyncio.Future[None] | None = None

    def leave(self, turn: "Turn") -> None:
        """A turn is over."""
        self.running.discard(turn)
        if self._idle is not None and not self.running:
            self._idle.set_result(None)
            self._idle = None

    async def drained(self) -> None:
        """Return when no turn is running, those that a lane starts meanwhile included."""
        while self.running:
            self._idle = self._idle or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)


class Phase(Enum):
    """Where a turn is; only ever moves down this list."""

    WAITING = 0
    RUNNING = 1
    COMMITTING = 2
    OVER = 3


class Turn:
    """One response being made. ``ended`` is called once, after the terminal event was written."""

    def __init__(
        self,
        backstage: Backstage,
        request: ResponseRequest,
        write: Write,
        ended: Callable[["Turn"], None],
        *,
        receive_ns: int,
    ) -> None:
        self.response_id = f"resp_{token_hex(16)}"
        self.request = request
        self.phase = Phase.WAITING
        self.record: Record | None = None
        """The node made, once the turn is over; None if it failed and cannot be a parent."""
        self.final_response = b""
        """JSON of the Response object, once the turn is over."""
        self._backstage = backstage
        self._write = write
        self._ended = ended
        self._parent: Record | None = None
        self._tools: tuple[Tool, ...] = ()
        self._is_cancelled = False
        self._stream: ResponseStream | None = None
        self._generation: Generation | None = None
        self._unsent: list[bytes] = []
        self._heartbeat: asyncio.TimerHandle | None = None
        self._receive_ns = receive_ns
        self._written_ns = 0

    # ------------------------------------------------------------------ from the transport

    def begin(self, parent: Record | None) -> None:
        """Start generating below ``parent``. Raises ``ApiError`` before anything was written."""
        request = self.request
        self._check_model(request.model)
        check_call_ids(request.input, parent.node if parent else None)
        self._tools = context_tools(parent, request.input)
        if self._tools:
            request = msgspec.structs.replace(request, tools=request.tools + self._tools)
        self._parent = parent
        self._start_stream(request)
        self.phase = Phase.RUNNING
        self._backstage.running.add(self)
        if self._is_cancelled:
            self._finish(Finished(FinishReason.CANCELLED, Usage()))
            return
        generation = GenerationRequest(
            response_id=self.response_id,
            model=request.model,
            parent=parent.node if parent else None,
            items=request.input,
            instructions=request.instructions,
            tools=request.tools,
            tool_choice=request.tool_choice,
            sampling=_sampling(request),
            max_output_tokens=request.max_output_tokens,
            generate=request.generate,
        )
        if request.generate:
            self._submit(generation)
        else:
            self._prewarm(generation)

    def cancel(self) -> None:
        """Ask for an early end; the terminal event is then ``response.incomplete``.

        A turn that has not begun says so when its time comes: the events of a lane stay in order.
        """
        self._is_cancelled = True
        if self._generation is not None:
            # Not at once: an engine may only have scheduled the start of what this would end.
            asyncio.get_running_loop().call_soon(self._generation.cancel)

    def abandon(self) -> None:
        """The peer is gone: write nothing any more and stop the engine."""
        self._write = _discard
        self.cancel()

    # ------------------------------------------------------------------ to the engine

    def _check_model(self, name: str) -> None:
        names = [model.name for model in self._backstage.engine.models()]
        if name not in names:
            raise ApiError(
                f"unknown model {name[:200]!r}; this server has {', '.join(names)}",
                code="model_not_found",
                param="model",
            )

    def _start_stream(self, request: ResponseRequest) -> None:
        suffix = self.response_id[5:21]
        numbers = iter(range(1 << 30))
        try:
            self._stream = ResponseStream(
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
            self._generation = backstage.engine.submit(request, self._receive)
        except Exception as error:  # noqa: BLE001 - a broken engine ends this response only
            self._break_off(error)
            return
        if self.phase is Phase.RUNNING:
            self._send([])  # response.created; the engine is already at work
            loop = asyncio.get_running_loop()
            self._heartbeat = loop.call_later(backstage.heartbeat_s, self._beat)

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
        if self.phase is not Phase.RUNNING or self._stream is None or not deltas:
            return
        finished = deltas[-1] if isinstance(deltas[-1], Finished) else None
        try:
            if finished is None:
                self._send(self._stream.feed(deltas))
            else:
                # Kept apart: they are numbered, and must leave also if this end is refused.
                self._unsent += self._stream.feed(deltas[:-1])
                self._finish(finished)
        except Exception as error:  # noqa: BLE001 - an engine out of order ends this response only
            self._break_off(error)

    def _send(self, events: list[bytes]) -> None:
        if self._unsent:
            events, self._unsent = self._unsent + events, []
        if not events:
            return
        self._write(events)
        self._written_ns = self._backstage.now_ns()

    def _beat(self) -> None:
        """Repeat ``response.in_progress`` when nothing was sent for a while.

        One timer a turn, re-armed here and not per batch: a stream of tokens never touches it.
        """
        if self.phase is not Phase.RUNNING or self._stream is None:
            return
        silent_s = (self._backstage.now_ns() - self._written_ns) / 1e9
        wait_s = self._backstage.heartbeat_s - silent_s
        if wait_s <= 0:
            self._send(self._stream.heartbeat())
            wait_s = self._backstage.heartbeat_s
        self._heartbeat = asyncio.get_running_loop().call_later(wait_s, self._beat)

    # ------------------------------------------------------------------ the end

    def _finish(self, finished: Finished) -> None:
        if self._stream is None:
            return
        figures = self._figures(finished.timing)
        timing = [("tightloop:timing", {"response_id": self.response_id, "timing": figures})]
        closing = self._stream.finish(
            finished, timing if figures is not None else None, completed_at=clock.unix_s()
        )
        self._close(closing, finished.reason)

    def _break_off(self, error: Exception) -> None:
        _log.error("response %s failed: %r", self.response_id, error, exc_info=error)
        if self._generation is not None:
            self._generation.cancel()
        if self._stream is not None:
            closing = self._stream.fail("server_error", f"the engine failed: {error}")
            self._close(closing, FinishReason.ERROR)

    def _close(self, events: list[bytes], reason: FinishReason) -> None:
        """Send the last events; the terminal one only once the promise to store is kept."""
        stream = self._stream
        if stream is None:
            return
        self.final_response = stream.final_response()
        if reason is not FinishReason.ERROR:
            self.record = self._new_record(stream)
            if self.request.store:
                self.phase = Phase.COMMITTING
                *before, terminal = events
                self._send(before)
                commit = self._commit(self.record, terminal)
                task = asyncio.get_running_loop().create_task(commit)
                self._backstage.commits.add(task)
                task.add_done_callback(self._backstage.commits.discard)
                return
        self._send(events)
        self._over()

    def _new_record(self, stream: ResponseStream) -> Record:
        parent = self._parent
        node = Node(
            id=self.response_id,
            parent=parent.node if parent else None,
            items=self.request.input + stream.output_items,
            usage=stream.usage or Usage(),
        )
        return Record(node, parent, len(self.request.input), self._tools)

    async def _commit(self, record: Record, terminal: bytes) -> None:
        try:
            await self._backstage.conversations.commit(record, self.final_response)
        except StoreError as error:
            _log.error("response %s was not stored: %s", self.response_id, error)
            terminal = self._take_back("store_failed", str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must see an end
            _log.exception("response %s was not stored", self.response_id)
            terminal = self._take_back("server_error", f"not stored: {type(error).__name__}")
        self._send([terminal])
        self._over()

    def _take_back(self, code: str, message: str) -> bytes:
        """The terminal event of a response whose end could not be made durable."""
        assert self._stream is not None
        self.record = None
        terminal = self._stream.take_back(code, message)
        self.final_response = self._stream.final_response()
        return terminal

    def _over(self) -> None:
        self.phase = Phase.OVER
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        self._backstage.leave(self)
        status = self._stream.status if self._stream is not None else "refused"
        _log.info("%s %s, parent %s", self.response_id, status, self.request.previous_response_id)
        self._ended(self)

    def _figures(self, timing: EngineTiming | None) -> dict[str, float] | None:
        """The timing event's figures, in seconds; see ``EngineTiming`` for the engine's part.

        Server, queue, prefill and decode are disjoint and together the time from the request's
        arrival to now, so a ledger can add them up. Hand-off that overlaps decoding is decode.
        """
        if timing is None or not self.request.wants_timing:
            return None
        before_ns = timing.submitted_ns - self._receive_ns
        after_ns = self._backstage.now_ns() - timing.finished_ns
        return {
            "server_s": (before_ns + after_ns) / 1e9,
            "queue_s": (timing.started_ns - timing.submitted_ns) / 1e9,
            "prefill_s": (timing.prefilled_ns - timing.started_ns) / 1e9,
            "decode_s": (timing.finished_ns - timing.prefilled_ns) / 1e9,
            "engine_first_token_s": max(0, timing.first_delta_ns - timing.started_ns) / 1e9,
            "decode_steps_s": timing.decode_ns / 1e9,
            "num_decode_steps": timing.num_decode_steps,
        }


def _sampling(request: ResponseRequest) -> Sampling:
    """As the request says; what it leaves open is the engine's choice."""
    return Sampling(request.temperature, request.top_p, request.seed)


def _discard(_events: Sequence[bytes]) -> None:
    """Nobody is listening."""


def _ignore(_deltas: Sequence[Delta]) -> None:
    """A prefill has no output."""
