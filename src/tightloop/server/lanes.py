"""WebSocket mode of one connection, without the socket: client events in, server events out.

Creates of one lane are answered strictly in order, one at a time; named lanes run beside each
other, at most ``MAX_IN_FLIGHT`` responses a connection, the rest wait. The connection remembers
the latest response of each lane, stored or not, and forgets it when a continuation of it fails.
Source of these rules: WebSocket mode guide of the Responses API.

``Session`` is also what an in-process client talks to, so both take the same path.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tightloop.protocol.errors import ApiError
from tightloop.protocol.prefill import Prefill
from tightloop.protocol.requests import STREAM_ID, ResponseRequest
from tightloop.protocol.response_stream import Cancellation
from tightloop.protocol.websocket_mode import (
    MAX_IN_FLIGHT,
    ClientEventDecoder,
    ResponseCancel,
    ResponseCreate,
    ResponseInterrupt,
    ResponsePrefill,
    ResponseSteer,
    error_event,
    unknown_event_error,
)
from tightloop.server.backstage import Backstage, Phase
from tightloop.server.conversations import Record
from tightloop.server.ending_early import nothing_to_end, unknown_here
from tightloop.server.lane_order import Create, Lane, Lanes, Refusal
from tightloop.server.openings import Opening, needs_opening, open_turn
from tightloop.server.prefilling import Prefiller, capabilities
from tightloop.server.steering import (
    Steer,
    SteerRefused,
    accept,
    owed_outputs,
    pending_fields,
    refusal_event,
    refusal_fields,
    successor_of,
    with_queued,
)
from tightloop.server.store import StoreError
from tightloop.server.streams import Write
from tightloop.server.turns import PLAIN, Manner, Turn

MAX_CONNECTION_S = 3600.0
"""After this a connection begins no more responses. Source: WebSocket mode guide."""


class _Peek(msgspec.Struct):
    """What a create that could not be decoded may still say."""

    type: str = ""
    stream_id: Any = None
    previous_response_id: Any = None


_peek = msgspec.json.Decoder(_Peek)
_log = logging.getLogger(__name__)


class Session:
    """One connection. ``write`` gets every batch of server events; see ``streams.Write``.

    ``closed`` is called once, when the connection ends.
    """

    def __init__(
        self,
        backstage: Backstage,
        write: Write,
        closed: Callable[["Session"], None],
        manner: Manner = PLAIN,
    ) -> None:
        self._backstage = backstage
        self._write = write
        self._closed = closed
        self._manner = manner
        self._decoder = ClientEventDecoder()
        self._lanes = Lanes()
        self._is_pumping = False
        self._is_closed = False
        self._expired: Callable[[], None] | None = None
        self._prefills: deque[Turn] = deque(maxlen=MAX_IN_FLIGHT)
        self._prefillers: dict[Lane, Prefiller] = {}

    @property
    def capabilities(self) -> frozenset[str]:
        """Names of the extensions that a client may use; see ``protocol.prefill``."""
        return capabilities(self._backstage.engine)

    def send(self, frame: bytes) -> None:
        """Take one client event. Never raises: what is wrong is answered with an error event."""
        receive_ns = self._backstage.now_ns()
        try:
            event = self._decoder.decode(frame)
            match event:
                case ResponseCreate():
                    self._create(event.request, receive_ns, len(frame))
                case ResponseCancel():
                    self._cancel(event.response_id, event.stream_id, Cancellation.INTERRUPTED)
                case ResponseInterrupt():
                    discards = event.mode == "discard_partial_items"
                    how = Cancellation.DISCARDED if discards else Cancellation.INTERRUPTED
                    self._cancel(event.response_id, event.stream_id, how)
                case ResponseSteer():
                    self._steer(event)
                case ResponsePrefill():
                    self._prefill(event.hint)
                case _:
                    raise unknown_event_error(event.type)
        except ApiError as error:
            self._reject(frame, error)

    def refuse(self, error: ApiError) -> None:
        """Answer something that was no event of a lane."""
        self._write([error_event(error)])

    def close(self, *, is_goodbye: bool = True) -> None:
        """The connection ended. May be called twice.

        What runs for it is stopped, unless the peer vanished without a goodbye: then it may come
        back for its responses.
        """
        if self._is_closed:
            return
        self._is_closed = True
        for lane in self._lanes.clear():
            self._take_leave(lane, is_goodbye)
        for turn in self._prefills:
            turn.cancel()
        for prefiller in self._prefillers.values():
            prefiller.stop()
        self._closed(self)

    def _take_leave(self, lane: Lane, is_goodbye: bool) -> None:
        """Nobody is here for a successor: who resumes the response is told so in its stream."""
        turn, steers = lane.active, lane.steers
        if turn is None:
            return
        turn.leave(is_goodbye=is_goodbye)
        if turn.phase is Phase.RUNNING:
            refused = SteerRefused("successor_creation_failed", "the connection ended")
            for steer in steers:
                parent_id, given = steer.previous_response_id, steer.given_back()
                fields = refusal_fields(refused, parent_id, given)
                turn.aside("response.steer.failed", fields)

    def expire(self, idle: Callable[[], None]) -> None:
        """Begin nothing more; once nothing is running, say so and call ``idle``."""
        self._expired = idle
        self._end_if_expired()

    # ------------------------------------------------------------------ client events

    def _create(self, request: ResponseRequest, receive_ns: int, num_bytes: int) -> None:
        if self._expired is not None:
            raise _connection_limit()
        lane = self._lanes.obtain(request.stream_id)
        self._lanes.check_room(num_bytes)
        if lane in self._prefillers:
            self._prefillers[lane].stop()
        self._enqueue(lane, Create(self._turn(request, receive_ns), num_bytes))

    def _turn(self, request: ResponseRequest, receive_ns: int) -> Turn:
        return Turn(
            self._backstage,
            request,
            self._write,
            self._ended,
            receive_ns=receive_ns,
            manner=self._manner,
        )

    def _reject(self, frame: bytes, error: ApiError) -> None:
        """Answer a bad event; a bad create only after what its lane is still working on."""
        try:
            peek = _peek.decode(frame)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            peek = _Peek()
        name = peek.stream_id
        is_name = name is None or (isinstance(name, str) and STREAM_ID.fullmatch(name) is not None)
        lane = self._lanes.get(name) if is_name and peek.type == "response.create" else None
        is_urgent = error.status == 429 or self._lanes.is_full
        if lane is None or is_urgent:
            self._write([error_event(error, name if is_name else None)])
            return
        self._enqueue(lane, Refusal(error, peek.previous_response_id))

    def _cancel(self, response_id: str | None, stream_id: str | None, how: Cancellation) -> None:
        """Cancel a response by id, or the oldest one of the lane. One named that is over is no error."""
        if response_id is None:
            lane = self._lanes.get(stream_id)
        else:
            lane = self._lanes.running(response_id)
        turn = lane.oldest if lane is not None else None
        if turn is not None:
            turn.cancel(how)
        elif response_id is None:
            raise nothing_to_end(stream_id)
        elif not self._has_ended(response_id):
            raise unknown_here(response_id, is_elsewhere=response_id in self._backstage.running)

    def _has_ended(self, response_id: str) -> bool:
        """Whether the response is one of those that are remembered after their end."""
        if response_id in self._backstage.running:
            return False
        found = self._recall(response_id) or self._backstage.streams.get(response_id)
        return found is not None

    def _steer(self, event: ResponseSteer) -> None:
        lane = self._lanes.running(event.previous_response_id)
        try:
            turn = self._steerable(lane, event)
        except SteerRefused as refused:
            name = lane.name if lane is not None else None
            self._write([refusal_event(refused, event.previous_response_id, event.given, name)])
            return
        assert lane is not None
        if not turn.num_calls:  # a call may already be running at the client's
            turn.cancel(Cancellation.STEERED)

    def _steerable(self, lane: Lane | None, event: ResponseSteer) -> Turn:
        """The response, which has accepted the steer. Raises ``SteerRefused``."""
        response_id = event.previous_response_id
        if not event.is_valid:
            text = "input must be text or a non-empty list of user messages"
            raise SteerRefused("invalid_input", text)
        turn = lane.active if lane is not None else None
        if lane is None or turn is None:
            if self._has_ended(response_id):
                text = f"{response_id[:200]!r} has ended; continue it with response.create"
                raise SteerRefused("response_already_completed", text)
            is_elsewhere = response_id in self._backstage.running
            error = unknown_here(response_id, is_elsewhere=is_elsewhere)
            raise SteerRefused("response_not_found", error.message)
        if turn.phase is not Phase.RUNNING:
            text = f"{response_id!r} is ending; continue it with response.create"
            raise SteerRefused("response_already_completed", text)
        if turn.is_stopped:
            text = f"{response_id!r} was cancelled"
            raise SteerRefused("response_not_active", text)
        steer = accept(event, turn.request, lane.steers)
        lane.steers.append(steer)
        turn.aside("response.steer.accepted", {"steer": steer.fields()})
        return turn

    def _prefill(self, hint: Prefill | None) -> None:
        """Use a hint about what follows the lane's running or latest response; drop any other."""
        lane = self._lanes.get(hint.stream_id) if hint is not None else None
        if hint is None or lane is None or lane.waiting or self._is_closed:
            return
        if hint.previous_response_id != lane.newest_id:
            return
        if lane not in self._prefillers:
            backstage = self._backstage
            self._prefillers[lane] = Prefiller(backstage.engine, backstage.prefill_slots)
        self._prefillers[lane].take(hint)
        self._prefill_on(lane)

    def _prefill_on(self, lane: Lane) -> None:
        """Have the engine work on what is known of the outputs, once their calls are known."""
        prefiller = self._prefillers.get(lane)
        if prefiller is None or lane.active is not None or self._is_closed:
            return
        if lane.latest is not None and lane.asked is not None:
            prefiller.begin(lane.latest, lane.asked)

    # ------------------------------------------------------------------ order

    def _enqueue(self, lane: Lane, entry: Create | Refusal) -> None:
        self._lanes.put(lane, entry)
        self._pump()

    def _pump(self) -> None:
        """Start whatever may start. A loop, not a recursion: a start can end at once."""
        if self._is_pumping:
            return
        self._is_pumping = True
        try:
            while (taken := self._take()) is not None:
                self._start(*taken)
        finally:
            self._is_pumping = False

    def _take(self) -> tuple[Lane, Create | Refusal] | None:
        return None if self._is_closed else self._lanes.take()

    def _start(self, lane: Lane, entry: Create | Refusal) -> None:
        if isinstance(entry, Refusal):
            lane.forget(entry.parent_id)
            self._write([error_event(entry.error, lane.name)])
            return
        turn = entry.turn
        parent_id = turn.request.previous_response_id
        if lane.pending and lane.pending[0].previous_response_id == parent_id:
            turn.request = with_queued(turn.request, lane.pending)
            entry.steers, lane.pending = lane.pending, []
        parent = None if parent_id is None else self._recall(parent_id)
        if needs_opening(turn.request) or (parent_id is not None and parent is None):
            task = asyncio.get_running_loop().create_task(self._open(lane, entry, parent))
            self._backstage.openings.add(task)
            task.add_done_callback(self._backstage.openings.discard)
        else:
            self._begin(lane, entry, Opening(turn.request, parent))

    def _recall(self, response_id: str) -> Record | None:
        return self._lanes.latest(response_id) or self._backstage.conversations.recall(response_id)

    async def _open(self, lane: Lane, entry: Create, parent: Record | None) -> None:
        try:
            opening = await open_turn(self._backstage, entry.turn.request, parent)
        except StoreError as error:
            refusal = ApiError(str(error), status=500, error_type="server_error")
            self._refuse(lane, entry, refusal)
        except ApiError as error:
            self._refuse(lane, entry, error)
        except Exception as error:  # noqa: BLE001 - it would leave the lane waiting for ever
            self._refuse_for_bug(lane, entry, error)
        else:
            self._begin(lane, entry, opening)

    def _begin(self, lane: Lane, entry: Create, opening: Opening) -> None:
        if self._is_closed:
            if opening.hold is not None:
                opening.hold.release()
            return
        turn = entry.turn
        turn.request = opening.request
        try:
            turn.begin(opening.parent, opening.hold)
        except ApiError as error:
            self._refuse(lane, entry, error)
        except Exception as error:  # noqa: BLE001 - it would end the lane before it, or the socket
            self._refuse_for_bug(lane, entry, error)

    def _refuse_for_bug(self, lane: Lane, entry: Create, error: Exception) -> None:
        _log.error("response %s could not begin", entry.turn.response_id, exc_info=error)
        text = f"internal error: {type(error).__name__}"
        self._refuse(lane, entry, ApiError(text, status=500, error_type="server_error"))

    def _refuse(self, lane: Lane, entry: Create, error: ApiError) -> None:
        if self._is_closed:
            return
        lane.forget(entry.turn.request.previous_response_id)
        if entry.is_successor:  # nobody sent a create that an error could answer
            self._fail_steers(lane, entry.steers, error.message)
        else:
            lane.pending = entry.steers or lane.pending
            self._write([error_event(error, lane.name)])
        self._free(lane)

    def _fail_steers(self, lane: Lane, steers: Sequence[Steer], reason: str) -> None:
        refused = SteerRefused("successor_creation_failed", reason)
        for steer in steers:
            parent_id, given = steer.previous_response_id, steer.given_back()
            self._write([refusal_event(refused, parent_id, given, lane.name)])

    def _ended(self, turn: Turn) -> None:
        lane = self._lanes.obtain(turn.request.stream_id)
        if turn.record is None:
            lane.forget(turn.request.previous_response_id)
        else:
            lane.latest, lane.asked = turn.record, turn.request
        if not turn.request.generate:
            self._prefills.append(turn)
        if lane.steers and not self._is_closed:
            self._after_steers(lane, turn)
        self._free(lane)

    def _after_steers(self, lane: Lane, turn: Turn) -> None:
        """Honour what was accepted for a response that has just ended."""
        steers, lane.steers = lane.steers, []
        if turn.record is None or turn.is_stopped:
            reason = "the response failed" if turn.record is None else "it was cancelled"
            self._fail_steers(lane, steers, reason)
            return
        owed = owed_outputs(turn.record.node.items)
        if not owed:
            successor = self._turn(successor_of(turn.request, steers), self._backstage.now_ns())
            self._lanes.put_first(lane, Create(successor, steers=steers, is_successor=True))
            return
        lane.pending = steers
        for steer in steers:
            turn.aside("response.steer.pending", pending_fields(steer, owed))

    def _free(self, lane: Lane) -> None:
        self._lanes.free(lane)
        self._pump()
        self._prefill_on(lane)
        self._end_if_expired()

    def _end_if_expired(self) -> None:
        if self._expired is None or not self._lanes.is_idle or self._is_closed:
            return
        self._write([error_event(_connection_limit())])
        self._expired()


def _connection_limit() -> ApiError:
    return ApiError(
        f"Responses websocket connection limit reached ({MAX_CONNECTION_S / 60:.0f} minutes)."
        " Create a new websocket connection to continue.",
        code="websocket_connection_limit_reached",
    )
