"""The lanes of one connection, and which of the creates that wait in them comes next.

Inside a lane they come one after the other. Across lanes at most ``MAX_IN_FLIGHT`` run; when more
wait, the lanes take turns. Source of these rules: WebSocket mode guide of the Responses API.
"""

from collections import deque
from dataclasses import dataclass, field

from tightloop.protocol.errors import ApiError
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.websocket_mode import MAX_IN_FLIGHT, MAX_NAMED_STREAMS
from tightloop.server.conversations import Record
from tightloop.server.steering import Steer
from tightloop.server.turns import Turn

MAX_WAITING = 256
"""Creates that may wait on one connection: each holds its decoded input in memory."""

MAX_WAITING_BYTES = 64 << 20
"""Of the frames of those creates. One create may always wait, however large."""


@dataclass(slots=True, eq=False)
class Refusal:
    """A create that cannot be honoured, answered when its turn in the lane comes."""

    error: ApiError
    parent_id: str | None


@dataclass(slots=True, eq=False)
class Create:
    """A response to be made; ``num_bytes`` is the length of the frame that asked for it.

    ``steers`` are those whose input it carries. ``is_successor``: it follows by itself.
    """

    turn: Turn
    num_bytes: int = 0
    steers: list[Steer] = field(default_factory=list)
    is_successor: bool = False


@dataclass(slots=True, eq=False)
class Lane:
    """``steers`` are those of the active response; ``pending`` those of the latest one, which
    wait for the create that brings its tools' outputs. ``asked`` is what the latest one answers."""

    name: str | None
    waiting: deque[Create | Refusal] = field(default_factory=deque)
    active: Turn | None = None
    latest: Record | None = None
    asked: ResponseRequest | None = None
    steers: list[Steer] = field(default_factory=list)
    pending: list[Steer] = field(default_factory=list)

    @property
    def oldest(self) -> Turn | None:
        """The response that runs here, or else the one that is to begin next."""
        if self.active is None and self.waiting and isinstance(self.waiting[0], Create):
            return self.waiting[0].turn
        return self.active

    @property
    def newest_id(self) -> str | None:
        """Of the response that runs here, or else of the latest one."""
        if self.active is not None:
            return self.active.response_id
        return self.latest.node.id if self.latest is not None else None

    def forget(self, parent_id: str | None) -> None:
        """A continuation of this response failed: it is no longer a parent here."""
        if self.latest is not None and self.latest.node.id == parent_id:
            self.latest = None


class Lanes:
    """All lanes of a connection; the default one has no name."""

    def __init__(self) -> None:
        self._lanes: dict[str | None, Lane] = {None: Lane(None)}  # those to look at first, first
        self._num_active = 0
        self._num_waiting = 0
        self._waiting_bytes = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self._num_active and not self._num_waiting

    @property
    def is_full(self) -> bool:
        """Whether nothing more may wait."""
        return self._num_waiting >= MAX_WAITING

    def get(self, name: str | None) -> Lane | None:
        """The lane of this name, if it has been used."""
        return self._lanes.get(name)

    def obtain(self, name: str | None) -> Lane:
        """The lane of this name. Raises ``ApiError`` when there are too many names."""
        lane = self._lanes.get(name)
        if lane is None:
            if len(self._lanes) > MAX_NAMED_STREAMS:  # the default lane is not named
                raise ApiError(
                    f"a connection has at most {MAX_NAMED_STREAMS} named streams;"
                    " open another connection or reuse a stream_id",
                    code="websocket_stream_limit_reached",
                    param="stream_id",
                )
            lane = self._lanes[name] = Lane(name)
        return lane

    def running(self, response_id: str) -> Lane | None:
        """The lane whose active response this is."""
        for lane in self._lanes.values():
            if lane.active is not None and lane.active.response_id == response_id:
                return lane
        return None

    def latest(self, response_id: str) -> Record | None:
        """The response, if it is the latest one of a lane."""
        for lane in self._lanes.values():
            if lane.latest is not None and lane.latest.node.id == response_id:
                return lane.latest
        return None

    def check_room(self, num_bytes: int) -> None:
        """Raise ``ApiError`` 429 when a create of this size may not wait."""
        is_large = self._num_waiting and self._waiting_bytes + num_bytes > MAX_WAITING_BYTES
        if self.is_full or is_large:
            raise ApiError(
                f"{self._num_waiting} responses are waiting on this connection; wait for some to"
                " end",
                status=429,
                error_type="rate_limit_error",
                code="too_many_waiting_responses",
                retry_after_s=1.0,
            )

    def put(self, lane: Lane, entry: Create | Refusal) -> None:
        """It waits behind everything in its lane."""
        lane.waiting.append(entry)
        self._count(entry, 1)

    def put_first(self, lane: Lane, entry: Create) -> None:
        """It waits in front of everything in its lane."""
        lane.waiting.appendleft(entry)
        self._count(entry, 1)

    def take(self) -> tuple[Lane, Create | Refusal] | None:
        """What may begin now, and is no longer waiting. A create is its lane's active one."""
        if not self._num_waiting or self._num_active >= MAX_IN_FLIGHT:
            return None
        for lane in self._lanes.values():
            if lane.waiting and lane.active is None:
                entry = lane.waiting.popleft()
                self._count(entry, -1)
                if isinstance(entry, Create):
                    lane.active = entry.turn
                    self._num_active += 1
                return lane, entry
        return None

    def free(self, lane: Lane) -> None:
        """The lane's active response is over; the other lanes come first now."""
        lane.active = None
        self._num_active -= 1
        self._lanes[lane.name] = self._lanes.pop(lane.name)

    def clear(self) -> list[Lane]:
        """Nothing waits any more; the lanes in which something still runs."""
        for lane in self._lanes.values():
            lane.waiting.clear()
        self._num_waiting = self._waiting_bytes = 0
        return [lane for lane in self._lanes.values() if lane.active is not None]

    def _count(self, entry: Create | Refusal, number: int) -> None:
        self._num_waiting += number
        if isinstance(entry, Create):
            self._waiting_bytes += number * entry.num_bytes
