"""Experiment 2: what a gateway costs per streamed token, at several rates.

Each round streams one long answer, and one of a single token just before it: the difference of their
CPU times over the difference of their lengths is the cost of a token without that of a request.
``transit`` is the median time from the upstream's write to the client's read; ``delivered`` is the rate
at which tokens came, which falls short where the gateway cannot keep up.
"""

import statistics

from benchmarks.lab.progress import Progress
from benchmarks.lab.record import Experiment, Figure, Machine, Ratio, Row, this_machine
from benchmarks.peers.field import Field
from benchmarks.peers.series import (
    Key,
    Series,
    compare,
    interleave,
    missing_rows,
    overs,
    warm,
    ways,
)
from benchmarks.peers.ways import Sample, Way

NAME = "per-token"
SIZE = "1k"
APIS = ("chat", "responses", "websocket")
RATES = {
    "65/s": (65.0, 65),
    "1000/s": (1000.0, 500),
    "3000/s": (3000.0, 1200),
    "unpaced": (0.0, 2000),
}
"""Tokens a second and tokens an answer."""

QUICK_RATES = {"1000/s": (1000.0, 100), "unpaced": (0.0, 500)}
FULL_ROUNDS, QUICK_ROUNDS = 5, 2
FIGURES = {"cpu": "us/token", "transit": "us", "transit p99": "us", "delivered": "tok/s"}


def run(field: Field, *, is_quick: bool) -> Experiment:
    """Measure everything that is up."""
    machine = this_machine()
    rounds = QUICK_ROUNDS if is_quick else FULL_ROUNDS
    rates = QUICK_RATES if is_quick else RATES
    progress = Progress(NAME, len(rates) * rounds * len(ways(field, SIZE, APIS)))
    found = {
        label: measure_rate(field, label, rate, num, rounds, progress)
        for label, (rate, num) in rates.items()
    }
    progress.end()
    return experiment(field, found, machine, rounds, rates)


def measure_rate(
    field: Field, label: str, rate: float, num: int, rounds: int, progress: Progress
) -> dict[Key, Series]:
    """All ways at one rate."""
    found: dict[Key, Series] = {}
    field.pace(1000.0, 1)
    wanted = [way for way in ways(field, SIZE, APIS) if warm(way, 1, found)]

    def measure(way: Way) -> dict[str, float]:
        field.pace(1000.0, 1)
        way.prepare(1)
        short = way.measure(1)
        field.pace(rate, num)
        return of_tokens(short, way.measure(num), has_cpu=way.gateway != "direct")

    try:
        interleave(wanted, rounds, measure, found, progress, label)
    finally:
        for way in wanted:
            way.close()
    return found


def of_tokens(short: Sample, sample: Sample, *, has_cpu: bool) -> dict[str, float]:
    """The figures of one streamed answer."""
    tokens, num = sample.tokens, len(sample.tokens)
    transits = [(token.arrived_ns - token.stamp_ns) / 1e3 for token in tokens]
    took_s = (tokens[-1].arrived_ns - tokens[0].arrived_ns) / 1e9
    values = {
        "transit": statistics.median(transits),
        "transit p99": sorted(transits)[int(0.99 * num)],
    }
    if took_s > 0:
        values["delivered"] = (num - 1) / took_s
    if has_cpu:
        values["cpu"] = (sample.cpu_ns - short.cpu_ns) / 1e3 / (num - 1)
    return values


def experiment(
    field: Field,
    found: dict[str, dict[Key, Series]],
    machine: Machine,
    rounds: int,
    rates: dict[str, tuple[float, int]],
) -> Experiment:
    """The record of it."""
    return Experiment(
        name=NAME,
        title="Per streamed token: gateway CPU, transit and delivered rate",
        settings={
            "rounds": rounds,
            "history": SIZE,
            "tokens": ", ".join(f"{label}: {num}" for label, (_, num) in rates.items()),
        },
        machine=machine,
        versions=field.versions,
        rows=[_row(rate, *each) for rate, ways_ in found.items() for each in ways_.items()]
        + missing_rows(field),
        ratios=ratios(found),
        notes=[
            "tightloop scripted has no upstream: its CPU contains making the tokens and a timer's "
            "wake-up for each, a gateway's contains being woken by its upstream",
            "cpu may come out below zero where the single-token request cost more by chance",
        ],
    )


def _row(rate: str, key: Key, series: Series) -> Row:
    params: dict[str, str | int | float | bool] = {"api": key[1], "rate": rate}
    if series.reason:
        return Row(key[0], params, {}, missing=series.reason)
    figures = {
        name: Figure.of(series.known(name), unit)
        for name, unit in FIGURES.items()
        if series.known(name)
    }
    return Row(key[0], params, figures)


def ratios(found: dict[str, dict[Key, Series]]) -> list[Ratio]:
    """CPU and transit of every peer over our gateway's; see ``overs``."""
    return [
        ratio
        for rate, each in found.items()
        for key in each
        for over in overs(key)
        for name in ("cpu", "transit")
        for ratio in compare(name, key, over, each, rate)
    ]
