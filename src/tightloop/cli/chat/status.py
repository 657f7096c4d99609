"""The status line: what works, how fast, and where the last turn's time went."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightloop.agent.terminal.styled import EMPTY, Line, Role, Span, line
from tightloop.cli.chat.durations import counted, duration, percentile, thousands

if TYPE_CHECKING:
    from tightloop.cli.chat.figures import TurnCost

GAP = " · "


@dataclass(slots=True)
class Gauges:
    """What the status line shows; what is empty or None is left out."""

    model: str = ""
    backend: str = ""
    isolation: str = ""
    mode: str = ""
    checks: str = ""
    trouble: str = ""
    """Why the backend is asked again, while it is."""
    test_level: str = ""
    """How the last test run came about, as in ``CommandExecution.how``."""
    context_tokens: int | None = None
    context_window: int | None = None
    cost: "TurnCost | None" = None
    race: str = ""
    """That the next turn is one, if it is."""

    def pieces(self) -> list[str]:
        """The most wanted first."""
        found = [self.trouble, self.model, self.race]
        if self.cost is not None:
            rate = percentile(self.cost.rate_per_s, 50)
            found.append("" if rate is None else f"{rate:.0f} tok/s")
            first = percentile(self.cost.ttft_s, 50)
            found.append("" if first is None else f"TTFT {duration(first)}")
            found.append(ledger_text(self.cost))
        found += [self._context(), self.checks]
        found.append(f"tests {self.test_level}" if self.test_level else "")
        found += [self.isolation, self.mode, self.backend]
        return [piece for piece in found if piece]

    def _context(self) -> str:
        if not self.context_tokens:
            return ""
        window = "" if self.context_window is None else f"/{thousands(self.context_window)}"
        return f"ctx {thousands(self.context_tokens)}{window}"


def ledger_text(cost: "TurnCost") -> str:
    """Such as ``3.2 s: client 0.1 server 0.3 engine 1.1 tools 1.7``."""
    number = "{:.1f}" if cost.wall_s >= 1 else "{:.2f}" if cost.wall_s >= 0.1 else "{:.3f}"
    parts = [f"{name} {number.format(seconds)}" for name, seconds in cost.slices().items()]
    return f"{duration(cost.wall_s)}: {' '.join(parts)}"


def turn_text(cost: "TurnCost") -> str:
    """What a turn came to, on one line below it."""
    ahead = cost.ahead
    tried = f", {ahead.num_used} of {ahead.num_used + ahead.num_wasted} run ahead used"
    saved = f", {duration(ahead.saved_s)} saved" if ahead.num_used else ""
    return (
        f"{ledger_text(cost)}, {counted(cost.num_trips, 'round trip')}"
        f"{tried if ahead.num_used or ahead.num_wasted else ''}{saved}"
    )


def status_lines(pieces: list[str], width: int, max_rows: int) -> list[Line]:
    """As many pieces as fit into the rows, in their order; what fits nowhere is left out."""
    rows: list[str] = []
    for piece in pieces:
        longer = f"{rows[-1]}{GAP}{piece}" if rows else ""
        if rows and len(longer) <= width:
            rows[-1] = longer
        elif len(rows) < max_rows and len(piece) <= width:
            rows.append(piece)
    return [line(row, Role.DIM) for row in rows]


def activity_line(words: str, hint: str) -> Line:
    """What goes on, and what a key would do about it."""
    if not words and not hint:
        return EMPTY
    found = [Span(words, Role.ACCENT)] if words else []
    if hint:
        found.append(Span(f"  {hint}" if words else hint, Role.DIM))
    return Line(tuple(found))
