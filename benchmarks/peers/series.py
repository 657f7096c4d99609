"""Rounds of interleaved samples, and what is made of them."""

import gc
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from benchmarks.lab.progress import Progress
from benchmarks.lab.record import Ratio, Row, paired_ratio
from benchmarks.peers.field import Field
from benchmarks.peers.reply import BadReply
from benchmarks.peers.ways import APIS, PINNED, PinnedWay, Way

NUM_WARMUP = 5
NUM_WARMUP_LITELLM = 20
PINNED_GATEWAYS = ("tightloop", "tightloop scripted")
SEED = 7


@dataclass(slots=True)
class Series:
    """Values of one way by figure; a round that failed holds None in each."""

    values: dict[str, list[float | None]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    num: int = 0

    def add(self, found: dict[str, float] | None) -> None:
        """One more round; None when it failed."""
        for name in {*self.values, *(found or ())}:
            known = self.values.setdefault(name, [None] * self.num)
            known.append(None if found is None else found.get(name))
        self.num += 1

    def known(self, name: str) -> list[float]:
        """The values of the rounds that did not fail."""
        return [value for value in self.values.get(name, ()) if value is not None]

    @property
    def reason(self) -> str:
        """Why there is no figure, when most rounds failed."""
        if 2 * self.errors.total() <= self.num and self.values:
            return ""
        return self.errors.most_common(1)[0][0] if self.errors else "no round was measured"


Key = tuple[str, str]
"""Gateway and API."""


def ways(field_: Field, size: str, apis: Sequence[str] = APIS) -> list[Way]:
    """Every gateway over every API that it offers."""
    return [
        Way(name, door, api, size)
        for api in apis
        for name, door in field_.doors.items()
        if Way.is_offered(door, api)
    ] + pinned_ways(field_, size)


def pinned_ways(field_: Field, size: str) -> list[Way]:
    """Our own WebSockets once more, each process on a core of its own; none where there is one core."""
    if len(os.sched_getaffinity(0)) < 2:
        return []
    return [
        PinnedWay(name, field_.doors[name], "websocket", size, field_.upstream_pids)
        for name in PINNED_GATEWAYS
        if name in field_.doors
    ]


def warm(way: Way, num_tokens: int, found: dict[Key, Series]) -> bool:
    """Whether the way works; if not, its series says why."""
    is_slow = way.gateway == "litellm"
    try:
        way.warm_up(NUM_WARMUP_LITELLM if is_slow else NUM_WARMUP, num_tokens)
    except BadReply as error:
        series = found.setdefault((way.gateway, way.api), Series())
        series.errors[one_line(error)] += 1
        return False
    return True


class Asked(Protocol):
    """What can be measured: a gateway over an API."""

    gateway: str
    api: str


AnyWay = TypeVar("AnyWay", bound=Asked)


def interleave(
    wanted: Sequence[AnyWay],
    rounds: int,
    measure: Callable[[AnyWay], dict[str, float]],
    found: dict[Key, Series],
    progress: Progress,
    label: str,
    before_round: Callable[[], None] = lambda: None,
) -> None:
    """Measure each way once a round, in random order. Garbage is collected between rounds."""
    for way in wanted:  # so that results come in this order
        found.setdefault((way.gateway, way.api), Series())
    rng = random.Random(SEED)
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            before_round()
            for way in rng.sample(wanted, len(wanted)):
                series = found[way.gateway, way.api]
                try:
                    series.add(measure(way))
                except BadReply as error:
                    series.add(None)
                    series.errors[one_line(error)] += 1
                progress.step(f"{label}, round {number + 1} of {rounds}")
            gc.collect()
    finally:
        gc.enable()


def compare(name: str, of: Key, over: Key, found: dict[Key, Series], label: str) -> list[Ratio]:
    """The ratio of one figure round by round; none where either side is unknown."""
    above, below = found.get(of), found.get(over)
    if above is None or below is None or above is below or above.reason or below.reason:
        return []
    if not above.known(name) or not below.known(name):
        return []
    values = above.values[name], below.values[name]
    try:
        return [paired_ratio(f"{name} {label}", way_name(of), way_name(over), *values)]
    except ValueError:  # no round with both
        return []


OURS = ("tightloop", "tightloop ws", "tightloop scripted")
TIGHT = (("tightloop", "websocket"), ("tightloop ws", "websocket"))
"""Incremental from the client to us, and from the client to the upstream."""


def overs(key: Key) -> list[Key]:
    """What a way is compared with.

    A peer: with our gateway asked the same way, and with its tight paths. Our own: with itself on a
    WebSocket; pinned, with itself as it is.
    """
    gateway, api = key
    if gateway.endswith(PINNED):
        return [(gateway.removesuffix(PINNED), api)]
    if gateway in OURS:
        return [(gateway, "websocket")]
    return list(dict.fromkeys([("tightloop", api), *TIGHT]))


def way_name(key: Key) -> str:
    """As ratios name it."""
    return ", ".join(key)


def one_line(error: Exception) -> str:
    """An error's text, short enough for a table's footnote."""
    return " ".join(str(error).split())[:200]


def missing_rows(field_: Field) -> list[Row]:
    """A row for each gateway that could not be started."""
    return [Row(name, {}, {}, missing=reason) for name, reason in field_.missing.items()]
