"""A turn and how it ended: the figures that logs, ledgers and the closing event are made of."""

from dataclasses import dataclass, field
from enum import Enum

from tightloop.agent import events as said
from tightloop.agent.limits import Limits as Limits
from tightloop.protocol.deltas import Usage
from tightloop.trace.check_runs import CheckFigures
from tightloop.trace.latency import RoundTrip, round_trip_overhead_s, ttft_s
from tightloop.trace.ledger import build_ledger
from tightloop.trace.spans import Span
from tightloop.trace.speculation import Try, sum_up


class Status(Enum):
    """How a turn ended."""

    COMPLETED = "completed"
    MAX_TURNS = "max_turns"
    TIMEOUT = "timeout"
    BUDGET = "budget"
    """A budget of tokens or money is used up; the message names it."""
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class TurnResult:
    """One turn: its last words, how it ended, and everything the ledger needs (ns, one clock)."""

    text: str
    status: Status
    spans: list[Span]
    round_trips: list[RoundTrip]
    start_ns: int
    end_ns: int
    usage: Usage
    events: list[said.Event] = field(default_factory=list)
    message: str = ""
    """Why it did not complete; empty when it did."""

    is_refused_at_once: bool = False
    """Whether nothing was answered and nothing will be: a wrong request, key or address."""

    tries: list[Try] = field(default_factory=list)
    """What ran ahead of the model, whether it was used or not; it takes none of the turn's time."""

    num_retries: int = 0
    """How often a response was asked for again, or read on over another connection."""

    checks: CheckFigures | None = None
    """What continuous checks came to."""

    @property
    def wall_s(self) -> float:
        """From the user's message to the last word, in seconds."""
        return (self.end_ns - self.start_ns) / 1e9

    def closing_event(self) -> said.TurnCompleted | said.TurnFailed:
        """The event that ends the turn, with its figures."""
        if self.status is not Status.COMPLETED:
            return said.TurnFailed(said.ErrorBody(self.message))
        ledger = build_ledger(self.start_ns, self.end_ns, self.spans, self.round_trips)
        figures = said.TurnFigures(
            len(self.round_trips),
            self.wall_s,
            tuple(map(ttft_s, self.round_trips)),
            tuple(map(round_trip_overhead_s, self.round_trips)),
            ledger.parts,
            said.SpeculationFigures.of(sum_up(self.tries)) if self.tries else None,
            num_retries=self.num_retries,
            lost_s=ledger.parts["waiting"],
            checks=self.checks,
        )
        usage = said.UsageBody(
            self.usage.input_tokens,
            self.usage.cached_tokens,
            self.usage.output_tokens,
            self.usage.reasoning_tokens,
        )
        return said.TurnCompleted(usage, figures)
