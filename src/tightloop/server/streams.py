"""The events of running and recent responses, for readers that come late or come back.

A response writes into its journal, and the journal into whoever reads it: the socket that asked,
a client that resumes after a dropped connection, nobody for a while. Events are numbered from 0
without gaps, so the number of an event is its index here.
"""

from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

Write = Callable[[Sequence[bytes]], None]
"""Takes the JSON of some events, in order; called on the event loop, never blocks or raises."""

MAX_ENDED_BYTES = 32 << 20
MAX_ENDED = 1024
"""Limits of what is kept of responses that have ended; the oldest go first."""


class Journal:
    """What one response has said. ``left`` is called when its last reader goes before its end.

    Once it has ended, its events are one object: thousands of journals of hundreds of events were most of
    what a garbage collection walked over, and each event took a sixth more than its bytes.
    """

    def __init__(
        self, response_id: str, left: Callable[[], None] | None = None, *, keeps: bool = True
    ) -> None:
        self.response_id = response_id
        self.is_over = False
        self.num_bytes = 0
        self._keeps = keeps
        self._events: list[bytes] = []
        self._whole = b""
        self._ends = array("Q")
        self._readers: tuple[Write, ...] = ()  # replaced, not changed: one may leave while called
        self._waiting: dict[Callable[[], None], None] = {}
        self._left = left

    @property
    def num_events(self) -> int:
        """Events kept so far; the next one has this number."""
        return len(self._ends) if self.is_over else len(self._events)

    @property
    def num_waiting(self) -> int:
        """How many ``when_over`` calls are still to come."""
        return len(self._waiting)

    @property
    def has_readers(self) -> bool:
        """Whether anybody is reading."""
        return bool(self._readers)

    def append(self, events: Sequence[bytes]) -> None:
        """Keep the events and hand them to every reader."""
        if self._keeps:
            self._events += events
        for read in self._readers:
            read(events)

    def end(self) -> None:
        """The terminal event was appended: nothing more comes, and the readers may go."""
        self.is_over = True
        self._pack()
        self._readers = ()  # a kept journal must not keep connections
        self._left = None
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            call()

    def read(self, write: Write, after: int = -1) -> None:
        """Write every event numbered above ``after``, then those to come."""
        events = self.events(after)
        if events:
            write(events)
        if not self.is_over:
            self._readers += (write,)

    def leave(self, write: Write) -> None:
        """This reader is gone. Nothing happens if it was not reading."""
        if write in self._readers:
            self._readers = tuple(reader for reader in self._readers if reader != write)
            if not self._readers and not self.is_over and self._left is not None:
                self._left()

    def events(self, after: int = -1) -> list[bytes]:
        """The events numbered above ``after``, as far as the stream has come."""
        if not self.is_over:
            return self._events[after + 1 :]
        ends, whole = self._ends[max(after, 0) :], self._whole
        if after < 0:
            ends.insert(0, 0)
        return [whole[start:end] for start, end in pairwise(ends)]

    def _pack(self) -> None:
        self._ends = array("Q", accumulate(map(len, self._events)))
        self._whole = b"".join(self._events)
        self._events = []
        self.num_bytes = len(self._whole) + len(self._ends) * self._ends.itemsize

    def when_over(self, call: Callable[[], None]) -> None:
        """Call once the response has ended, at once if it has."""
        if self.is_over:
            call()
        else:
            self._waiting[call] = None

    def not_when_over(self, call: Callable[[], None]) -> None:
        """Take back a ``when_over``: who no longer waits must not be kept until the end."""
        self._waiting.pop(call, None)


class Streams:
    """Journals by response id: of every running response and of the latest that ended."""

    def __init__(self, *, max_ended: int = MAX_ENDED, max_bytes: int = MAX_ENDED_BYTES) -> None:
        self._running: dict[str, Journal] = {}
        self._ended: OrderedDict[str, Journal] = OrderedDict()
        self._num_bytes = 0
        self._max_ended = max_ended
        self._max_bytes = max_bytes

    def add(self, journal: Journal) -> None:
        """Keep a journal until some time after its end."""
        self._running[journal.response_id] = journal
        journal.when_over(lambda: self._retire(journal))

    def get(self, response_id: str) -> Journal | None:
        """The journal of a running or recent response."""
        return self._running.get(response_id) or self._ended.get(response_id)

    def forget(self, response_id: str) -> None:
        """Drop what is kept of an ended response."""
        journal = self._ended.pop(response_id, None)
        if journal is not None:
            self._num_bytes -= journal.num_bytes

    @property
    def num_bytes(self) -> int:
        """Bytes of the events kept of ended responses."""
        return self._num_bytes

    def _retire(self, journal: Journal) -> None:
        self._running.pop(journal.response_id, None)
        self._ended[journal.response_id] = journal
        self._num_bytes += journal.num_bytes
        while len(self._ended) > self._max_ended or self._num_bytes > self._max_bytes:
            _, oldest = self._ended.popitem(last=False)
            self._num_bytes -= oldest.num_bytes
