"""Where a turn's wall time went: nine parts that add up to it.

Every instant of a turn belongs to exactly one part. While a test or another tool runs, the time
is ``test`` or ``tool`` (even when a response is still arriving: the tool is what one waits for);
else, while a request that failed is waited for, or the pause before it is made again, ``waiting``;
else, while a round trip is open, it belongs to the round trip; else it is the ``client``'s own
work. The time of a round trip is then split with the figures in the server's timing event:
``queue``, ``prefill``, ``decode`` and ``server`` as the server measured them, and ``network`` for
the rest, which holds the kernel, the wire and the client's reading. A round trip that a tool
partly hides is split in proportion.

The sum can differ from the wall time only when a server reports more time than the client saw
pass. That difference is kept as ``excess_s`` and never hidden: ``error_fraction`` must stay below
1 % (checked by the demo and the tests).
"""

import itertools
from collections.abc import Iterable, Sequence

from msgspec import Struct

from tightloop.trace.latency import RoundTrip, round_trip_s
from tightloop.trace.spans import Span

PARTS = ("client", "network", "server", "queue", "prefill", "decode", "tool", "test", "waiting")
"""The parts in the order in which a round goes through them; the last one only if something fails."""

_OWN_KINDS = ("test", "tool", "waiting")
"""Kinds of spans that are parts of their own, the first one first where they overlap."""


class Segment(Struct, frozen=True, gc=False):
    """One coloured piece of a waterfall: ``part`` from ``start_ns`` to ``end_ns``."""

    part: str
    start_ns: int
    end_ns: int
    label: str = ""


class Ledger(Struct, frozen=True):
    """Seconds per part; ``excess_s`` is what servers reported beyond what was seen."""

    wall_s: float
    parts: dict[str, float]
    excess_s: float = 0.0

    @property
    def error_fraction(self) -> float:
        """How far the parts are from adding up to the wall time, as a fraction of it."""
        if self.wall_s == 0:
            return 0.0
        return abs(sum(self.parts.values()) - self.wall_s) / self.wall_s


def build_ledger(
    start_ns: int, end_ns: int, spans: Iterable[Span], trips: Sequence[RoundTrip]
) -> Ledger:
    """The ledger of a turn that lasted from ``start_ns`` to ``end_ns`` (clock readings).

    Raises ValueError when the turn ends before it starts.
    """
    if end_ns < start_ns:
        raise ValueError(f"a turn cannot end ({end_ns}) before it starts ({start_ns})")
    parts = dict.fromkeys(PARTS, 0.0)
    visible_s = [0.0] * len(trips)
    for owner, begin_ns, finish_ns in _owners(start_ns, end_ns, spans, trips):
        length_s = (finish_ns - begin_ns) / 1e9
        if isinstance(owner, int):
            visible_s[owner] += length_s
        else:
            parts[owner] += length_s
    excess_s = 0.0
    for trip, seen_s in zip(trips, visible_s, strict=True):
        split, beyond_s = split_round_trip(trip)
        whole_s = round_trip_s(trip)
        share = seen_s / whole_s if whole_s else 0.0
        for part, length_s in split.items():
            parts[part] += length_s * share
        excess_s += beyond_s * share
    return Ledger((end_ns - start_ns) / 1e9, parts, excess_s)


def split_round_trip(trip: RoundTrip) -> tuple[dict[str, float], float]:
    """Seconds per part of one round trip, and what the server reported beyond its length.

    Without a timing event everything is ``network``: nothing else is known.
    """
    reported = {
        "server": trip.server_s or 0.0,
        "queue": trip.queue_s or 0.0,
        "prefill": trip.prefill_s or 0.0,
        "decode": trip.decode_s or 0.0,
    }
    rest_s = round_trip_s(trip) - sum(reported.values())
    return {"network": max(0.0, rest_s), **reported}, max(0.0, -rest_s)


def waterfall(
    start_ns: int, end_ns: int, spans: Iterable[Span], trips: Sequence[RoundTrip]
) -> list[Segment]:
    """The turn as consecutive segments, for drawing; same ownership rules as the ledger.

    Inside a round trip the order is network (half), queue, server, prefill, decode, network:
    the order in which a request meets them, not separately measured instants.
    """
    spans = list(spans)
    segments: list[Segment] = []
    for owner, begin_ns, finish_ns in _owners(start_ns, end_ns, spans, trips):
        if not isinstance(owner, int):
            label = next(
                (s.label for s in spans if s.kind == owner and s.start_ns <= begin_ns < s.end_ns),
                "",
            )
            segments.append(Segment(owner, begin_ns, finish_ns, label))
            continue
        split, _ = split_round_trip(trips[owner])
        total_s = sum(split.values()) or 1.0
        pieces = [
            ("network", split["network"] / 2),
            *((part, split[part]) for part in ("queue", "server", "prefill", "decode")),
            ("network", split["network"] / 2),
        ]
        position = float(begin_ns)
        for part, length_s in pieces:
            length_ns = length_s / total_s * (finish_ns - begin_ns)
            if length_ns >= 1:
                segments.append(Segment(part, round(position), round(position + length_ns)))
            position += length_ns
    return segments


def _owners(
    start_ns: int, end_ns: int, spans: Iterable[Span], trips: Sequence[RoundTrip]
) -> list[tuple[str | int, int, int]]:
    """Disjoint intervals that cover the turn: (part, or index of a round trip; begin; end)."""
    intervals: list[tuple[int, int, str | int, int]] = [
        (span.start_ns, span.end_ns, span.kind, _OWN_KINDS.index(span.kind))
        for span in spans
        if span.kind in _OWN_KINDS
    ]
    intervals += [
        (trip.sent_ns, trip.last_event_ns, index, len(_OWN_KINDS))
        for index, trip in enumerate(trips)
    ]
    clipped = [
        (max(begin, start_ns), min(finish, end_ns), owner, rank)
        for begin, finish, owner, rank in intervals
        if finish > start_ns and begin < end_ns
    ]
    edges = sorted(
        {start_ns, end_ns, *(edge for begin, finish, *_ in clipped for edge in (begin, finish))}
    )
    owned: list[tuple[str | int, int, int]] = []
    for begin_ns, finish_ns in itertools.pairwise(edges):
        holders = [
            (rank, order)
            for order, (begin, finish, _owner, rank) in enumerate(clipped)
            if begin <= begin_ns and finish >= finish_ns
        ]
        owner = clipped[min(holders)[1]][2] if holders else "client"
        if owned and owned[-1][0] == owner and owned[-1][2] == begin_ns:
            owned[-1] = (owner, owned[-1][1], finish_ns)
        else:
            owned.append((owner, begin_ns, finish_ns))
    return owned
