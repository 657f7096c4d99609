"""Experiment 1: what a gateway adds to a round trip, at several sizes of history.

A turn brings 4 kB of new text to a history; the answer has six tokens at 1000 a second, because with
all of them at once the upstream's own work would stand before the first. ``ttft`` is wall time from
the first byte sent to the first token read; ``added`` is what it takes longer than without a gateway in
the same round, over the same API; ``cpu`` is the gateway's CPU time for the request. Once more after six
idle seconds: ``reconnected`` counts the turns that found their connection closed. Our own WebSockets are
also measured pinned: moved to a core of their own for each turn.
"""

import contextlib
import statistics

from benchmarks.lab.processes import pause
from benchmarks.lab.progress import Progress
from benchmarks.lab.record import Experiment, Figure, Machine, Ratio, Row, this_machine
from benchmarks.lab.statistics import unpaired_ratio
from benchmarks.peers.field import Field
from benchmarks.peers.reply import BadReply
from benchmarks.peers.series import (
    Key,
    Series,
    compare,
    interleave,
    missing_rows,
    overs,
    warm,
    way_name,
    ways,
)
from benchmarks.peers.ways import APIS, PINNED, Way

NAME = "round-trip"
NUM_TOKENS = 6
RATE = 1000.0
SIZES = ("1k", "10k", "50k", "200k")
QUICK_SIZES = ("1k", "50k")
FULL_ROUNDS, QUICK_ROUNDS = 30, 4
NO_UPSTREAM = "tightloop scripted"
"""It has the whole time to first token for its own: what the upstream takes is not in it."""

IDLE_SIZE, IDLE_S, QUICK_IDLE_S = "10k", 6.0, 0.2
"""A tool that runs longer than the five seconds after which clients and servers often let an idle
connection go."""

IDLE_ROUNDS, QUICK_IDLE_ROUNDS = 8, 1
SPREAD = {"ttft": "us", "added": "us", "cpu": "us", "reconnected": "%"}
STEADY = {"sent": "kB", "upstream": "kB", "rss": "MB"}
"""Figures whose median says everything: what the client sends, what reaches the upstream, memory."""


def run(field: Field, *, is_quick: bool) -> Experiment:
    """Measure everything that is up."""
    machine = this_machine()
    sizes = QUICK_SIZES if is_quick else SIZES
    rounds = QUICK_ROUNDS if is_quick else FULL_ROUNDS
    idle_rounds = QUICK_IDLE_ROUNDS if is_quick else IDLE_ROUNDS
    total = (len(sizes) * rounds + idle_rounds) * len(ways(field, sizes[0]))
    progress = Progress(NAME, total)
    field.pace(RATE, NUM_TOKENS)
    found = {size: measure_size(field, size, rounds, progress) for size in sizes}
    idle_s = QUICK_IDLE_S if is_quick else IDLE_S
    found[idle_label(idle_s)] = measure_size(field, IDLE_SIZE, idle_rounds, progress, idle_s)
    progress.end()
    return experiment(field, found, machine, rounds)


def idle_label(idle_s: float) -> str:
    """What stands in the place of a size of history."""
    return f"{IDLE_SIZE}, after {idle_s:g} s"


def measure_size(
    field: Field, size: str, rounds: int, progress: Progress, idle_s: float = 0.0
) -> dict[Key, Series]:
    """All ways at one size; each round begins with so much idle time."""
    found: dict[Key, Series] = {}
    wanted = [way for way in ways(field, size) if warm(way, NUM_TOKENS, found)]

    def measure(way: Way) -> dict[str, float]:
        way.prepare(NUM_TOKENS)
        field.counts()
        sample = way.measure(NUM_TOKENS)
        counts = field.counts()
        values = {
            "ttft": sample.ttft_us,
            "sent": sample.num_sent_bytes / 1e3,
            "upstream": sum(num for name, num in counts.items() if name.endswith("bytes")) / 1e3,
        }
        if idle_s:
            values["reconnected"] = 100.0 * sample.is_reconnected
        if way.gateway != "direct":
            values |= {"cpu": sample.cpu_ns / 1e3, "rss": way.rss_mb()}
        return values

    def idle() -> None:
        """A conversation that must be opened anew is opened before, not after."""
        for way in wanted if idle_s else ():
            with contextlib.suppress(BadReply):  # then measuring it says so
                way.prepare(NUM_TOKENS)
        pause(idle_s)

    try:
        interleave(wanted, rounds, measure, found, progress, f"history of {size}", idle)
    finally:
        for way in wanted:
            way.close()
    for (gateway, api), series in found.items():
        if has_floor(gateway):
            add_differences(series, found.get(("direct", api)))
    return found


def has_floor(gateway: str) -> bool:
    """Whether the direct way's time is contained in its own: that one has an upstream and is never pinned."""
    return gateway != NO_UPSTREAM and not gateway.endswith(PINNED)


def add_differences(series: Series, direct: Series | None) -> None:
    """The figure ``added``, round by round."""
    if direct is None or direct is series:
        return
    pairs = zip(series.values.get("ttft", ()), direct.values.get("ttft", ()), strict=False)
    series.values["added"] = [
        None if own is None or floor is None else own - floor for own, floor in pairs
    ]


def experiment(
    field: Field, found: dict[str, dict[Key, Series]], machine: Machine, rounds: int
) -> Experiment:
    """The record of it."""
    notes = [note for door in field.doors.values() for note in door.notes]
    notes.append(
        "tightloop scripted has no upstream: its engine makes the tokens in the server's own process, "
        "and all of its time to first token is the server's"
    )
    return Experiment(
        name=NAME,
        title="Round trip: time to first token and gateway CPU against history",
        settings={"rounds": rounds, "tokens": NUM_TOKENS, "rate_per_s": RATE, "new_bytes": 4096},
        machine=machine,
        versions=field.versions,
        rows=rows(found) + missing_rows(field),
        ratios=ratios(found),
        notes=notes,
    )


def rows(found: dict[str, dict[Key, Series]]) -> list[Row]:
    """One for each size, API and gateway."""
    order = [
        (size, api, gateway)
        for size, each in found.items()
        for api in APIS
        for gateway, key_api in each
        if key_api == api
    ]
    return [_row(size, (gateway, api), found[size][gateway, api]) for size, api, gateway in order]


def _row(size: str, key: Key, series: Series) -> Row:
    params: dict[str, str | int | float | bool] = {"api": key[1], "history": size}
    if series.reason:
        return Row(key[0], params, {}, missing=series.reason)
    figures = {
        name: Figure.of(series.known(name), unit)
        for name, unit in SPREAD.items()
        if series.known(name)
    }
    for name, unit in STEADY.items():
        if series.known(name):
            figures[name] = Figure.of([statistics.median(series.known(name))], unit)
    return Row(key[0], params, figures)


def ratios(found: dict[str, dict[Key, Series]]) -> list[Ratio]:
    """Every peer over our gateway asked the same way, and over its tight paths; see ``overs``."""
    return [
        ratio
        for size, each in found.items()
        for key in each
        for over in overs(key)
        for ratio in _compare(size, key, over, each)
    ]


def _compare(size: str, of: Key, over: Key, found: dict[Key, Series]) -> list[Ratio]:
    """TTFT and CPU round by round; what is added by its medians, where that is above noise."""
    made = [each for name in ("ttft", "cpu") for each in compare(name, of, over, found, size)]
    if not made:
        return []
    added = [found[key].known("added") for key in (of, over)]
    if all(values and Figure.of(values, "us").p10 > 0 for values in added):
        made.append(unpaired_ratio(f"added {size}", way_name(of), way_name(over), *added))
    return made
