"""The demo: N held-out bugs, each fixed over the classic and over the tight path.

The order of the two alternates from bug to bug, so that a drift of the machine hits both alike.
Figures are medians; ratios are taken bug by bug. Nothing is averaged over failures: a bug that
neither path fixed counts in ``attempted`` and in every time, since its rounds were made all the same.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tightloop.bench.bugs import Bug
from tightloop.bench.paired import Spread, ratios, spread
from tightloop.bench.paths import ClassicPath, FixPath, FixRun, TightPath
from tightloop.bench.serve_process import ServeProcess
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.isolation import Finding, probe
from tightloop.trace.latency import inter_token_latency_s, round_trip_overhead_s, ttft_s
from tightloop.trace.ledger import PARTS

MAX_LEDGER_ERROR = 0.01
"""The parts of every turn's ledger must add up to its wall time within this fraction."""

RESPONSE_PARTS = ("network", "server", "queue", "prefill", "decode")
TOOL_PARTS = ("tool", "test")


@dataclass(frozen=True, slots=True)
class PathSummary:
    """Medians of one path, with quartiles. Times in ms where the name says so, else seconds."""

    name: str
    attempted: int
    fixed: int
    wrongly_claimed: int
    fix_wall_s: Spread | None
    setup_s: Spread | None
    ttft_ms: Spread | None
    round_trip_overhead_ms: Spread | None
    inter_token_ms: Spread | None
    tokens_per_s: Spread | None
    round_trips: Spread | None
    parts_ms: dict[str, float]
    max_ledger_error: float

    @property
    def tool_ms(self) -> float:
        """Tools and tests per fix, sum of the medians of the two parts."""
        return sum(self.parts_ms[part] for part in TOOL_PARTS)

    def as_dict(self) -> dict[str, Any]:
        """The medians as one flat object, for ``--json``."""

        def median(value: Spread | None) -> float | None:
            return None if value is None else round(value.median, 4)

        return {
            "ttft_ms": median(self.ttft_ms),
            "round_trip_overhead_ms": median(self.round_trip_overhead_ms),
            "inter_token_ms": median(self.inter_token_ms),
            "tokens_per_s": median(self.tokens_per_s),
            "fix_wall_s": median(self.fix_wall_s),
            "fixed": self.fixed,
            "attempted": self.attempted,
            "wrongly_claimed": self.wrongly_claimed,
            "setup_s": median(self.setup_s),
            "tool_ms": round(self.tool_ms, 4),
            "ledger_ms": {part: round(value, 4) for part, value in self.parts_ms.items()},
            "max_ledger_error": round(self.max_ledger_error, 6),
        }


@dataclass(slots=True)
class DemoResult:
    """All runs, in pairs, and where they ran."""

    model: str
    isolation: Finding
    weaker_because: list[str] = field(default_factory=list)
    classic: list[FixRun] = field(default_factory=list)
    tight: list[FixRun] = field(default_factory=list)

    def ratio(self, figure: Callable[[FixRun], float | None]) -> Spread | None:
        """Classic / tight of one figure, bug by bug."""
        return ratios([figure(run) for run in self.classic], [figure(run) for run in self.tight])

    def as_dict(self) -> dict[str, Any]:
        """The object that ``tightloop demo --json`` prints as its last line."""
        wall = self.ratio(lambda run: run.turn.wall_s)
        first = self.ratio(lambda run: median_of(run, ttft_s))
        return {
            "model": self.model,
            "isolation": self.isolation.kind,
            "bugs": [run.bug.id for run in self.tight],
            "paths": {
                "classic": summarise("classic", self.classic).as_dict(),
                "tight": summarise("tight", self.tight).as_dict(),
            },
            "classic_over_tight": {
                "fix_wall_s": _spread_dict(wall),
                "ttft_ms": _spread_dict(first),
                "round_trip_overhead_ms": _spread_dict(
                    self.ratio(lambda run: median_of(run, round_trip_overhead_s))
                ),
                "tool_ms": _spread_dict(self.ratio(tool_s)),
            },
        }


def tool_s(run: FixRun) -> float:
    """Seconds of one fix that went into tools and tests."""
    return sum(run.ledger.parts[part] for part in TOOL_PARTS)


def median_of(run: FixRun, figure: Callable[[Any], float | None]) -> float | None:
    """Median of a figure over the round trips of one fix."""
    found = spread(figure(trip) for trip in run.turn.round_trips)
    return None if found is None else found.median


def decode_rate_of(run: FixRun) -> float | None:
    """Tokens per second of one fix: its network's single-token steps over the time inside them."""
    steps = sum(trip.num_decode_steps for trip in run.turn.round_trips)
    inside_s = sum(trip.decode_steps_s or 0.0 for trip in run.turn.round_trips)
    return steps / inside_s if steps and inside_s else None


def summarise(name: str, runs: Sequence[FixRun]) -> PathSummary:
    """The medians of one path: TTFT and overhead over its round trips, the rest over its fixes."""
    trips = [trip for run in runs for trip in run.turn.round_trips]

    def over_trips(figure: Callable[[Any], float | None], scale: float = 1.0) -> Spread | None:
        values = [figure(trip) for trip in trips]
        return spread(value * scale for value in values if value is not None)

    parts = {part: spread(run.ledger.parts[part] * 1e3 for run in runs) for part in PARTS}
    return PathSummary(
        name=name,
        attempted=len(runs),
        fixed=sum(run.is_fixed for run in runs),
        wrongly_claimed=sum(run.claims_fixed and not run.is_fixed for run in runs),
        fix_wall_s=spread(run.turn.wall_s for run in runs),
        setup_s=spread(run.setup_s for run in runs),
        ttft_ms=over_trips(ttft_s, 1e3),
        round_trip_overhead_ms=over_trips(round_trip_overhead_s, 1e3),
        inter_token_ms=over_trips(inter_token_latency_s, 1e3),
        tokens_per_s=spread(decode_rate_of(run) for run in runs),
        round_trips=spread(float(len(run.turn.round_trips)) for run in runs),
        parts_ms={part: value.median if value else 0.0 for part, value in parts.items()},
        max_ledger_error=max((run.ledger.error_fraction for run in runs), default=0.0),
    )


def _spread_dict(value: Spread | None) -> dict[str, float] | None:
    if value is None:
        return None
    return {
        "median": round(value.median, 3),
        "p25": round(value.low, 3),
        "p75": round(value.high, 3),
    }


async def choose_isolation() -> tuple[Finding, list[str]]:
    """The strongest isolation that works here, and why not a stronger one.

    Raises SandboxError when there is none.
    """
    reasons: list[str] = []
    for finding in await probe():
        if finding.works:
            return finding, reasons
        reasons.append(f"{finding.kind}: {finding.detail}")
    raise SandboxError("no isolation works on this machine:\n" + "\n".join(reasons))


Progress = Callable[[str, int, Bug, FixRun | None], None]
"""Called with (path, bug number, bug, None) before a fix and with its run after it."""


async def run_demo(
    bugs: Sequence[Bug], model: str, on_progress: Progress, on_ready: Callable[[DemoResult], None]
) -> DemoResult:
    """Fix every bug over both paths against one server. ``on_ready`` comes before the first fix.

    Raises SandboxError without isolation and BenchError when git or the server fails.
    """
    isolation, reasons = await choose_isolation()
    result = DemoResult(model, isolation, reasons)
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tightloop-demo-")))
        server = await stack.enter_async_context(ServeProcess(model, home / "server"))
        kind, state = isolation.kind, home / "state"
        classic = ClassicPath(server.url, model, kind, state)
        tight = TightPath(server.url, model, kind, state)
        both: tuple[FixPath, FixPath] = (classic, tight)
        for path in both:
            stack.push_async_callback(path.close)
            await path.open()
        on_ready(result)
        for number, bug in enumerate(bugs):
            for path in both if number % 2 == 0 else both[::-1]:
                on_progress(path.name, number, bug, None)
                run = await path.fix(bug, home / "bugs" / f"{number}-{path.name}" / bug.qualname)
                (result.classic if path is classic else result.tight).append(run)
                on_progress(path.name, number, bug, run)
    return result
