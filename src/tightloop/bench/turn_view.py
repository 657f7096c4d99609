"""What ``tightloop bench turn`` found, as a JSON object and as tables."""

from collections.abc import Callable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tightloop.bench.conversations import Sample
from tightloop.bench.history import NEW_BYTES
from tightloop.bench.paired import Spread, ratios, spread
from tightloop.bench.turn import NUM_WARMUP, Plan, Series, TurnResult, known, size_name
from tightloop.trace.latency import (
    RoundTrip,
    round_trip_overhead_s,
    round_trip_s,
    streamed_rate_per_s,
    ttft_s,
)

WAYS = {
    ("responses", "ws"): "WebSocket, new item",
    ("responses", "http"): "HTTP kept, resend",
    ("responses", "http-new"): "HTTP new, resend",
    ("chat", "http"): "Chat kept, resend",
    ("chat", "http-new"): "Chat new, resend",
}

DELAYED_ACK_MS = (38.0, 60.0)
"""Linux acknowledges after 40 ms; what else a turn costs on one host comes on top."""

FLAT_MS = 10.0


def _ms(figure: Callable[[RoundTrip], float | None]) -> Callable[[Sample], float | None]:
    def in_ms(sample: Sample) -> float | None:
        seconds = figure(sample.trip)
        return None if seconds is None else 1e3 * seconds

    return in_ms


FIGURES: dict[str, Callable[[Sample], float | None]] = {
    "ttft_ms": _ms(ttft_s),
    "last_byte_ms": _ms(round_trip_s),
    "round_trip_overhead_ms": _ms(round_trip_overhead_s),
    "tokens_per_s": lambda sample: streamed_rate_per_s(sample.trip),
    "request_bytes": lambda sample: float(sample.num_bytes),
    "input_tokens": lambda sample: float(sample.trip.input_tokens),
    "cached_tokens": lambda sample: float(sample.trip.cached_tokens),
    "output_tokens": lambda sample: float(sample.trip.output_tokens),
}
"""Name in the JSON object, and the figure of one turn."""


def figure(series: Series, name: str) -> Spread | None:
    """Median and quartiles over the turns that were answered."""
    return spread(FIGURES[name](sample) for sample in known(series.samples))


def told(series: Series) -> dict[str, Spread]:
    """What the endpoint's Server-Timing headers say, by metric, in ms."""
    samples = known(series.samples)
    names = dict.fromkeys(name for sample in samples for name in sample.server_timing)
    spreads = {name: spread(each.server_timing.get(name) for each in samples) for name in names}
    return {name: value for name, value in spreads.items() if value is not None}


def as_dict(result: TurnResult) -> dict[str, Any]:
    """The JSON object; durations in milliseconds, as the names say."""
    plan = result.plan
    return {
        "benchmark": "turn",
        "url": plan.url,
        "model": plan.model,
        "api": plan.api,
        "rounds": plan.rounds,
        "warmup_rounds": NUM_WARMUP,
        "seed": plan.seed,
        "max_output_tokens": plan.max_output_tokens,
        "tool_output_bytes": NEW_BYTES,
        "requests": result.num_requests,
        "failed": result.num_failed,
        "skipped": result.skipped,
        "histories": {
            size_name(size): {name: _series_dict(found, name) for name in found}
            for size, found in result.series.items()
        },
        "findings": findings(result),
    }


def _series_dict(found: dict[str, Series], name: str) -> dict[str, Any]:
    series = found[name]
    ratio = _faster(found, name)
    return {
        **{key: _spread_dict(figure(series, key)) for key in FIGURES},
        "ttft_times_faster_than_slowest": _spread_dict(ratio),
        "server_timing_ms": {key: _spread_dict(value) for key, value in told(series).items()},
        "turns": len(known(series.samples)),
        "reconnected": sum(sample.is_reconnected for sample in known(series.samples)),
        "forgotten_by_endpoint": series.num_lost,
        "errors": dict(series.errors),
    }


def _spread_dict(value: Spread | None) -> dict[str, float] | None:
    if value is None:
        return None
    rounded = (round(number, 4) for number in (value.median, value.low, value.high))
    return dict(zip(("median", "p25", "p75"), rounded, strict=True))


def _faster(found: dict[str, Series], name: str) -> Spread | None:
    """How many times sooner the first token comes than over the slowest variant, round by round."""
    medians = {key: figure(series, "ttft_ms") for key, series in found.items()}
    measured = {key: value.median for key, value in medians.items() if value is not None}
    if not measured:
        return None
    slowest = max(measured, key=measured.__getitem__)
    return ratios(_ttfts(found[slowest]), _ttfts(found[name]))


def _ttfts(series: Series) -> list[float | None]:
    return [None if sample is None else ttft_s(sample.trip) for sample in series.samples]


def findings(result: TurnResult) -> list[str]:
    """What the figures mean, in sentences; none where nothing stands out."""
    found = [f"{name}: {why}" for name, why in result.skipped.items()]
    if _has_nagle_signature(result):
        found.append(
            "a kept connection waits about 40 ms for the first token whatever the size, a new one "
            "does not: the endpoint, or a proxy before it, writes without TCP_NODELAY, and its "
            "second write waits for a delayed acknowledgement (Nagle's algorithm)"
        )
    for size, variants in result.series.items():
        for name, series in variants.items():
            where = f"{name}, {size_name(size)}"
            found += [f"{where}: {count} failed: {text}" for text, count in series.errors.items()]
            if stated := told(series):
                says = ", ".join(f"{key} {_number(each.median)}" for key, each in stated.items())
                found.append(
                    f"{where}: the endpoint's Server-Timing says {says} ms (medians), as known when"
                    " its answer began"
                )
            num_closed = sum(sample.is_reconnected for sample in known(series.samples))
            if num_closed:
                found.append(
                    f"{where}: the endpoint closed the kept connection before {num_closed} of the "
                    "turns; their times contain connecting anew"
                )
            if series.num_lost:
                found.append(
                    f"{where}: {series.num_lost} turns left out: the endpoint had forgotten the "
                    "conversation and everything was sent again"
                )
    return found


def _has_nagle_signature(result: TurnResult) -> bool:
    """A kept connection at about 40 ms at every size, and a new one far below at each."""
    kept: list[float] = []
    for variants in result.series.values():
        pair = [
            figure(variants[name], "ttft_ms") for name in ("http", "http-new") if name in variants
        ]
        if len(pair) != 2 or pair[0] is None or pair[1] is None:
            return False
        low, high = DELAYED_ACK_MS
        if not low <= pair[0].median <= high or pair[1].median > pair[0].median / 2:
            return False
        kept.append(pair[0].median)
    return bool(kept) and max(kept) - min(kept) < FLAT_MS


def heading(plan: Plan) -> Text:
    """What is measured, in two lines."""
    text = Text()
    text.append("endpoint  ", style="dim")
    text.append(f"{plan.url}  {plan.model}\n")
    text.append("turns     ", style="dim")
    text.append(f"{plan.rounds} a row, {NEW_BYTES // 1024} kB of tool output each; ")
    text.append(f"medians, middle halves; seed {plan.seed}")
    return text


def report(result: TurnResult) -> RenderableType:
    """One table per size, and what stands out."""
    parts: list[RenderableType] = [heading(result.plan)]
    for size in result.series:
        parts += ["", _table(result, size)]
    notes = [Text(f"- {line}", style="yellow") for line in findings(result)]
    return Group(*parts, *([""] if notes else []), *notes)


def _table(result: TurnResult, size: int) -> Table:
    found = result.series[size]
    title = f"A history of {size_name(size)} tokens, growing with each turn; times in ms"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    has_overhead = any(figure(series, "round_trip_overhead_ms") for series in found.values())
    columns = ["TTFT", "middle half", "done"]
    columns += ["over-\nhead"] if has_overhead else []
    for column in (*columns, "tok/s", "sent", "cached", "faster"):
        table.add_column(column, justify="right", no_wrap=True)
    fastest = _fastest(found)
    for name, series in found.items():
        cells = _cells(series, has_overhead=has_overhead)
        label = WAYS[result.plan.api, name]
        table.add_row(
            label, *cells, _times(_faster(found, name)), style="bold" if name == fastest else ""
        )
    return table


def _fastest(found: dict[str, Series]) -> str | None:
    medians = {name: figure(series, "ttft_ms") for name, series in found.items()}
    measured = {name: value.median for name, value in medians.items() if value is not None}
    return min(measured, key=measured.__getitem__) if len(measured) > 1 else None


def _cells(series: Series, *, has_overhead: bool) -> list[str]:
    first = figure(series, "ttft_ms")
    middle = f"{_number(first.low)}-{_number(first.high)}" if first else ""
    cells = [_median(first), middle, _median(figure(series, "last_byte_ms"))]
    if has_overhead:
        cells.append(_median(figure(series, "round_trip_overhead_ms")))
    sent = figure(series, "request_bytes")
    return [
        *cells,
        _median(figure(series, "tokens_per_s")),
        _bytes(sent.median) if sent else "-",
        _share(series),
    ]


def _share(series: Series) -> str:
    """Cached tokens as a share of the input tokens."""
    cached, asked = figure(series, "cached_tokens"), figure(series, "input_tokens")
    if cached is None or asked is None or not asked.median:
        return "-"
    return f"{cached.median / asked.median:.0%}"


def _median(value: Spread | None) -> str:
    return _number(value.median) if value else "-"


def _number(value: float) -> str:
    """Three significant digits, as far as there are any to show."""
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def _bytes(number: float) -> str:
    unit, scale = ("MB", 1e6) if number >= 1e6 else ("kB", 1e3)
    return f"{_number(number / scale)} {unit}"


def _times(ratio: Spread | None) -> str:
    return f"{ratio.median:.1f}x" if ratio else "-"


def print_report(console: Console, result: TurnResult) -> None:
    """Print the tables and what stands out."""
    console.print(report(result))
