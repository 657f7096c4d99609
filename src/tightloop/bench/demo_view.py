"""What a person sees of the demo: progress a line a bug, then tables and two waterfalls."""

from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tightloop.bench.bugs import card_figures
from tightloop.bench.demo import (
    MAX_LEDGER_ERROR,
    DemoResult,
    PathSummary,
    median_of,
    summarise,
    tool_s,
)
from tightloop.bench.paired import Spread
from tightloop.bench.paths import FixRun
from tightloop.bench.waterfall import draw
from tightloop.trace.latency import round_trip_overhead_s, ttft_s
from tightloop.trace.ledger import PARTS, waterfall


def heading(result: DemoResult) -> RenderableType:
    """Which model, which isolation, and what would be stronger."""
    lines = Text()
    lines.append("model      ", style="dim")
    lines.append(f"{result.model}\n")
    lines.append("isolation  ", style="dim")
    detail = result.isolation.detail.removeprefix("entered; ")
    lines.append(f"{result.isolation.kind}: {detail}")
    for reason in result.weaker_because:
        lines.append(f"\n           not {reason}", style="yellow")
    return lines


def pair_line(number: int, total: int, classic: FixRun, tight: FixRun) -> Text:
    """One bug over both paths, on one line of at most 80 characters."""
    line = Text(f"{number + 1:>3}/{total} ")
    name = f"{tight.bug.distribution} {tight.bug.qualname}"
    line.append(f"{name[:28]:<29}")
    line.append(f"{tight.bug.kind[:15]:<16}", style="dim")
    for run in (classic, tight):
        line.append("✓" if run.is_fixed else "✗", style="green" if run.is_fixed else "red")
        line.append(f"{run.turn.wall_s:6.2f} s  ")
    line.append(f"{classic.turn.wall_s / tight.turn.wall_s:4.1f}x", style="bold")
    return line


def report(result: DemoResult, *, width: int = 80) -> RenderableType:
    """Everything after the last fix."""
    classic, tight = summarise("classic", result.classic), summarise("tight", result.tight)
    shown = _shown_pair(result)
    return Group(
        "",
        comparison(result, classic, tight),
        "",
        ledger_table(classic, tight),
        "",
        *(_waterfall(run, width) for run in shown),
        *notes(result, classic, tight),
    )


def comparison(result: DemoResult, classic: PathSummary, tight: PathSummary) -> Table:
    """The table of the two paths and their ratio."""
    table = Table(title="Median per path", title_justify="left", box=None, pad_edge=False)
    for column in ("", "classic", "tight", "classic / tight", "middle half"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row(
        "fixed", f"{classic.fixed}/{classic.attempted}", f"{tight.fixed}/{tight.attempted}"
    )
    add = _row_adder(table)
    add("wall time per fix, s", classic.fix_wall_s, tight.fix_wall_s, "{:.2f}",
        result.ratio(lambda run: run.turn.wall_s))  # fmt: skip
    add("TTFT, ms", classic.ttft_ms, tight.ttft_ms, "{:.2f}",
        result.ratio(lambda run: median_of(run, ttft_s)))  # fmt: skip
    add("round-trip overhead, ms", classic.round_trip_overhead_ms, tight.round_trip_overhead_ms,
        "{:.2f}", result.ratio(lambda run: median_of(run, round_trip_overhead_s)))  # fmt: skip
    ratio = result.ratio(tool_s)
    table.add_row("tools and tests per fix, ms", f"{classic.tool_ms:.0f}", f"{tight.tool_ms:.0f}",
                  *_ratio_cells(ratio))  # fmt: skip
    add("decode, tokens/s", classic.tokens_per_s, tight.tokens_per_s, "{:.0f}", None)
    add("round trips per fix", classic.round_trips, tight.round_trips, "{:.0f}", None)
    add("set-up before the turn, s", classic.setup_s, tight.setup_s, "{:.2f}", None)
    return table


def _row_adder(
    table: Table,
) -> Callable[[str, Spread | None, Spread | None, str, Spread | None], None]:
    def add(
        label: str, left: Spread | None, right: Spread | None, form: str, ratio: Spread | None
    ) -> None:
        cells = [form.format(value.median) if value else "-" for value in (left, right)]
        table.add_row(label, *cells, *_ratio_cells(ratio))

    return add


def _ratio_cells(ratio: Spread | None) -> list[str]:
    if ratio is None:
        return ["", ""]
    return [f"{ratio.median:.1f}x", f"{ratio.low:.1f} - {ratio.high:.1f}"]


def ledger_table(classic: PathSummary, tight: PathSummary) -> Table:
    """Median milliseconds per fix in each part of the ledger."""
    table = Table(
        title="Where the time of a fix went, ms", title_justify="left", box=None, pad_edge=False
    )
    table.add_column("")
    summaries = (classic, tight)
    has_waited = any(summary.parts_ms["waiting"] for summary in summaries)
    parts = [part for part in PARTS if has_waited or part != "waiting"]
    for part in parts:
        table.add_column(part, justify="right")
    for summary in summaries:
        table.add_row(summary.name, *(f"{summary.parts_ms[part]:.1f}" for part in parts))
    return table


def _shown_pair(result: DemoResult) -> list[FixRun]:
    """The pair to draw: fixed on both paths with the fewest rounds, else the first."""
    pairs = list(zip(result.classic, result.tight, strict=True))
    fixed = [pair for pair in pairs if pair[0].is_fixed and pair[1].is_fixed]
    if not pairs:
        return []
    chosen = min(fixed or pairs, key=lambda pair: len(pair[1].turn.round_trips))
    return list(chosen)


def _waterfall(run: FixRun, width: int) -> RenderableType:
    turn = run.turn
    title = Text(f"{run.path} path, {run.bug.id}: {turn.wall_s * 1e3:.0f} ms", style="bold")
    segments = waterfall(turn.start_ns, turn.end_ns, turn.spans, turn.round_trips)
    return Group(title, draw(segments, width=width), "")


def notes(result: DemoResult, classic: PathSummary, tight: PathSummary) -> list[Text]:
    """What a reader must know to read the figures rightly; problems in yellow."""
    found: list[Text] = []
    for summary in (classic, tight):
        if summary.wrongly_claimed:
            text = f"{summary.name}: {summary.wrongly_claimed} fixes were claimed but failed the cold check"
            found.append(Text(text, style="bold red"))
        if summary.max_ledger_error > MAX_LEDGER_ERROR:
            text = f"{summary.name}: a ledger is off by {summary.max_ledger_error:.1%} of its wall time"
            found.append(Text(text, style="bold red"))
    other = sorted({run.workspace for run in result.tight} - {"overlay"})
    found += [
        Text(f"tight: the workspace was no overlay: {kind}", style="yellow") for kind in other
    ]
    failed = [run.bug.id for run in result.tight if not run.is_fixed]
    if failed:
        found.append(Text(f"not fixed: {', '.join(failed)}", style="yellow"))
    figures = card_figures()
    found.append(
        Text(
            f"{result.model} is a demo model: a network of {figures.num_parameters / 1e6:.1f} M "
            "parameters that repairs one-line bugs in small functions, tried on functions it never "
            f"saw. This draw: {tight.fixed} of {tight.attempted}; all {figures.num_bugs} held-out "
            f"bugs: {figures.pass_at['1']:.0%} at the first try, {figures.pass_at['8']:.0%} within "
            "eight. For real work choose another model.",
            style="dim",
        )
    )
    return found


def print_report(console: Console, result: DemoResult) -> None:
    """Print the report at the console's width, at most 100 characters."""
    console.print(report(result, width=min(console.width, 100)))
