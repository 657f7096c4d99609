"""What the turns of this session cost, for the status line and ``/latency``. Bounded memory."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tightloop.agent.turn import TurnResult
from tightloop.cli.chat.durations import duration, percentile
from tightloop.trace.latency import (
    RoundTrip,
    decode_rate_per_s,
    round_trip_overhead_s,
    streamed_rate_per_s,
    ttft_s,
)
from tightloop.trace.ledger import PARTS, build_ledger
from tightloop.trace.speculation import Speculation, sum_up

NUM_TURNS_KEPT = 1000
MIN_TOKENS = 16
"""A rate of fewer says nothing: they arrive in one batch."""

GROUPS = {
    "client": ("client",),
    "server": ("network", "server", "queue", "waiting"),
    "engine": ("prefill", "decode"),
    "tools": ("tool", "test"),
}
"""The parts of the ledger as the status line sums them up."""


@dataclass(frozen=True, slots=True)
class TurnCost:
    """One turn. ``parts`` are seconds, see ``trace.ledger``; the rest is one figure a round trip."""

    wall_s: float
    parts: dict[str, float]
    num_trips: int
    ttft_s: tuple[float, ...]
    overhead_s: tuple[float, ...]
    rate_per_s: tuple[float, ...]
    ahead: Speculation

    @staticmethod
    def of(result: TurnResult) -> "TurnCost":
        """The figures of a turn that has ended in any way."""
        trips = result.round_trips
        ledger = build_ledger(result.start_ns, result.end_ns, result.spans, trips)
        return TurnCost(
            result.wall_s,
            ledger.parts,
            len(trips),
            tuple(s for s in map(ttft_s, trips) if s is not None),
            tuple(s for s in map(round_trip_overhead_s, trips) if s is not None),
            tuple(r for r in map(_rate_per_s, trips) if r is not None),
            sum_up(result.tries),
        )

    def slices(self) -> dict[str, float]:
        """Seconds for each of ``GROUPS``."""
        return {name: sum(self.parts[part] for part in parts) for name, parts in GROUPS.items()}


@dataclass(slots=True)
class SessionFigures:
    """The last turns, the newest last."""

    turns: deque[TurnCost] = field(default_factory=lambda: deque(maxlen=NUM_TURNS_KEPT))

    def add(self, result: TurnResult) -> TurnCost:
        """Count one more."""
        cost = TurnCost.of(result)
        self.turns.append(cost)
        return cost

    @property
    def last(self) -> TurnCost | None:
        """The newest."""
        return self.turns[-1] if self.turns else None


def _rate_per_s(trip: RoundTrip) -> float | None:
    """Of the model's own steps where they are reported, else as tokens arrived; None of too few."""
    if trip.num_decode_steps:
        return decode_rate_per_s(trip) if trip.num_decode_steps >= MIN_TOKENS else None
    return streamed_rate_per_s(trip) if trip.output_tokens >= MIN_TOKENS else None


def latency_rows(figures: SessionFigures) -> list[str]:
    """The table of ``/latency``, at most 62 columns wide."""
    last = figures.last
    if last is None:
        return ["no turn has ended yet"]
    turns = list(figures.turns)
    rows = [_row("", "last", "p50", "p95", "session")]
    rows.append(_seconds("turn", last.wall_s, [turn.wall_s for turn in turns]))
    for part in PARTS:
        values = [turn.parts[part] for turn in turns]
        if any(values):
            rows.append(_seconds(f"  {part}", last.parts[part], values))
    trips = [float(turn.num_trips) for turn in turns]
    rows.append(
        _row("round trips", f"{last.num_trips}", *_quantiles(trips, _number), _number(sum(trips)))
    )
    rows.append(_trip_row("TTFT", last.ttft_s, [turn.ttft_s for turn in turns]))
    rows.append(_trip_row("overhead", last.overhead_s, [turn.overhead_s for turn in turns]))
    rates = [rate for turn in turns for rate in turn.rate_per_s]
    last_rate = percentile(last.rate_per_s, 50)
    rows.append(_row("tokens/s", _number(last_rate), *_quantiles(rates, _number), ""))
    total = sum((turn.ahead for turn in turns), Speculation())
    if total.num_used or total.num_wasted:
        rows.append(str(total))
    return rows


def _trip_row(name: str, last: Sequence[float], all_of: Sequence[Sequence[float]]) -> str:
    """A figure of round trips: of the last turn the median."""
    values = [value for turn in all_of for value in turn]
    return _row(name, duration(percentile(last, 50)), *_quantiles(values, duration), "")


def _seconds(name: str, last: float, values: Sequence[float]) -> str:
    return _row(name, duration(last), *_quantiles(values, duration), duration(sum(values)))


def _quantiles(values: Sequence[float], shown: Callable[[float | None], str]) -> tuple[str, str]:
    return shown(percentile(values, 50)), shown(percentile(values, 95))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _row(name: str, *cells: str) -> str:
    return f"{name:<14}" + "".join(f"{cell:>12}" for cell in cells).rstrip()
