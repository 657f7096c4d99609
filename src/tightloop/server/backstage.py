"""What all turns of a server share, and which of them are under way."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from tightloop.engine.interface import Engine
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.response_stream import Cancellation
from tightloop.server.conversation_book import ConversationBook
from tightloop.server.conversations import Conversations
from tightloop.server.heartbeats import Heartbeats
from tightloop.server.known_histories import KnownHistories
from tightloop.server.prefilling import Slots
from tightloop.server.streams import Journal, Streams, Write
from tightloop.trace import clock

HEARTBEAT_S = 5.0
"""Silence after which ``response.in_progress`` is repeated: clients' idle timers count events."""

RESUME_GRACE_S = 10.0
"""How long a response goes on without a reader. Clients reconnect within a second or two."""


class Phase(Enum):
    """Where a turn is; only ever moves down this list."""

    WAITING = 0
    RUNNING = 1
    COMMITTING = 2
    OVER = 3


class Running(Protocol):
    """A turn that is under way, as all but its own client see it; see ``turns.Turn``."""

    response_id: str
    request: ResponseRequest
    phase: Phase
    journal: Journal

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody asked for an early end."""

    def cancel(self, cancellation: Cancellation = ...) -> None:
        """Ask for an early end."""

    def resume(self, write: Write, after: int) -> None:
        """Write the events numbered above ``after`` to another reader."""

    def snapshot(self) -> bytes:
        """JSON of the Response object as it is now."""


@dataclass(slots=True, eq=False)
class Backstage:
    """What every turn of a server needs, and which turns are under way, by response id."""

    engine: Engine
    conversations: Conversations
    book: ConversationBook
    heartbeat_s: float = HEARTBEAT_S
    now_ns: Callable[[], int] = clock.now_ns
    resume_grace_s: float = RESUME_GRACE_S
    streams: Streams = field(default_factory=Streams)
    histories: KnownHistories = field(default_factory=KnownHistories)
    heartbeats: Heartbeats = field(init=False)
    running: dict[str, Running] = field(default_factory=dict)
    orphans: set[Running] = field(default_factory=set)
    prefill_slots: Slots = field(default_factory=Slots)
    openings: set[asyncio.Task[None]] = field(default_factory=set)
    """Turns of lanes that look up what they start from; they will run, or be refused."""
    commits: set[asyncio.Task[None]] = field(default_factory=set)
    """Commits under way; the store may be closed when they are done."""
    _idle: asyncio.Future[None] | None = None

    def __post_init__(self) -> None:
        self.heartbeats = Heartbeats(self.heartbeat_s)

    def leave(self, turn: Running) -> None:
        """A turn is over."""
        self.running.pop(turn.response_id, None)
        self.orphans.discard(turn)
        if self._idle is not None and not self.running:
            self._idle.set_result(None)
            self._idle = None

    def supersede(self, request: ResponseRequest) -> None:
        """Stop the orphans whose client has moved on to ``request``."""
        for orphan in list(self.orphans):
            if _is_same_client(orphan.request, request):
                orphan.cancel()

    async def drained(self) -> None:
        """Return when no turn is running, those that a lane starts meanwhile included."""
        while self.running or self.openings:
            if self.openings:
                await asyncio.wait(self.openings)
                continue
            self._idle = self._idle or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)


def _is_same_client(before: ResponseRequest, now: ResponseRequest) -> bool:
    """Whether whoever asked for ``before`` has gone on with ``now`` in its place.

    A client with several lanes uses one cache key for all of them, and forks have one parent: only
    the same lane is the same place.
    """
    if before.conversation is not None and before.conversation == now.conversation:
        return True
    if before.stream_id != now.stream_id:
        return False
    pairs = (
        (before.prompt_cache_key, now.prompt_cache_key),
        (before.previous_response_id, now.previous_response_id),
    )
    return any(left is not None and left == right for left, right in pairs)
