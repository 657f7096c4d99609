"""The plots of the page, by file name; one that has no results is not made."""

from collections.abc import Callable, Sequence

from benchmarks.lab.record import Figure, Row
from benchmarks.net.follow_up import WAYS as FOLLOW_UP_WAYS
from benchmarks.net.trips import KEPT, NEW, TIGHT, TUNED
from benchmarks.page.charts import Dot, Line, dot_chart, line_chart, stacked_bars
from benchmarks.page.results import Results
from benchmarks.peers.ways import PINNED
from tightloop.trace.ledger import PARTS

BEST_LAST = ("chat", "responses", "websocket")
PLOTTED_RATES = ("1000/s", "unpaced")


def plots(results: Results) -> dict[str, str]:
    """File name and SVG text of every plot that can be drawn."""
    made = {name: draw(results) for name, draw in PLOTS.items()}
    return {name: svg for name, svg in made.items() if svg is not None}


def best_ways(rows: Sequence[Row], figure: str) -> list[Row]:
    """Of each gateway, the rows of the API that a follow-up turn is cheapest over.

    A WebSocket where it has one, else the Responses API, else Chat Completions.
    """
    rows = [row for row in rows if figure in row.figures and not row.variant.endswith(PINNED)]
    apis: dict[str, str] = {}
    for api in BEST_LAST:
        apis |= {row.variant: api for row in rows if row.params.get("api") == api}
    return [row for row in rows if row.params.get("api") == apis.get(row.variant)]


def _way(row: Row) -> str:
    return f"{row.variant}, {row.params['api']}"


def _lines(rows: Sequence[Row], figure: str, place: str) -> tuple[list[str], list[Line]]:
    """A line for each way over the values of the parameter ``place``."""
    rows = [row for row in rows if figure in row.figures and place in row.params]
    places = list(dict.fromkeys(str(row.params[place]) for row in rows))
    lines = []
    for name in dict.fromkeys(map(_way, rows)):
        points: list[Figure | None] = [None] * len(places)
        for row in rows:
            if _way(row) == name:
                points[places.index(str(row.params[place]))] = row.figures[figure]
        lines.append(Line(name, points))
    return places, lines


def round_trip(results: Results) -> str | None:
    """TTFT against history: every gateway its best way, and ours resending everything."""
    rows = [row for row in results.rows("round-trip") if "reconnected" not in row.figures]
    classic = [
        row for row in rows if (row.variant, row.params["api"]) == ("tightloop", "responses")
    ]
    places, lines = _lines([*best_ways(rows, "ttft"), *classic], "ttft", "history")
    if not lines:
        return None
    title = "Time to first token against history, over loopback, each gateway its best way"
    return line_chart(title, places, lines, "history, tokens", "us")


def per_token(results: Results) -> str | None:
    """CPU per token at two rates, every gateway its best way, the cheapest first."""
    groups = []
    for rate in PLOTTED_RATES:
        rows = [row for row in results.rows("per-token") if row.params["rate"] == rate]
        found = [row for row in best_ways(rows, "cpu") if row.figures["cpu"].p10 > 0]
        found.sort(key=lambda row: row.figures["cpu"].median)
        if found:
            dots = [Dot(_way(row), row.figures["cpu"]) for row in found]
            groups.append((rate, dots))
    if not groups:
        return None
    title = "CPU of the gateway per streamed token"
    return dot_chart(title, groups, "us per token, all processes of the gateway", is_log=True)


def follow_up(results: Results) -> str | None:
    """TTFT of the follow-up turn, case by case."""
    rows = results.rows("follow-up-ttft")
    cases = list(
        dict.fromkeys((row.params["model"], row.params["history"], row.params["output"], row.params["tool_s"]) for row in rows)
    )  # fmt: skip
    groups = []
    for model, history, output, tool_s in cases:
        wanted = {"model": model, "history": history, "output": output, "tool_s": tool_s}
        found = {row.variant: row for row in rows if wanted.items() <= row.params.items()}
        dots = [Dot(way, found[way].figures["ttft"]) for way in FOLLOW_UP_WAYS if way in found]
        name = (
            f"{model}: {history} tokens of history, {output} of new output printed in {tool_s:g} s"
        )
        groups.append((name, dots))
    if not groups:
        return None
    return dot_chart("Time to first token of a follow-up turn", groups, "ms", is_log=True)


def network(results: Results) -> str | None:
    """Round trips to the first token at the middle distance measured."""
    rows = [
        row
        for row in results.rows("network")
        if "round_trips" in row.figures
        and row.params["new_kB"] == 4
        and row.params["idle_s"] == 0.6
        and "mbit_per_s" not in row.params
    ]
    distances = sorted({float(row.params["rtt_ms"]) for row in rows})
    if not distances:
        return None
    rtt_ms = distances[len(distances) // 2]
    rows = [row for row in rows if row.params["rtt_ms"] == rtt_ms]
    groups = []
    for control in dict.fromkeys(str(row.params["cc"]) for row in rows):
        for history in dict.fromkeys(str(row.params["history"]) for row in rows):
            found = {
                row.variant: row.figures["round_trips"]
                for row in rows
                if (row.params["cc"], row.params["history"]) == (control, history)
            }
            dots = [Dot(way, found[way]) for way in (NEW, KEPT, TUNED, TIGHT) if way in found]
            groups.append((f"{control}, history of {history} tokens", dots))
    title = f"Network round trips to the first token, RTT {rtt_ms:g} ms, TLS 1.3"
    return dot_chart(title, groups, "round trips")


def replay(results: Results) -> str | None:
    """Where the wall time of the replay went."""
    bars = []
    for row in results.rows("edit-test-replay"):
        where = f"{row.params['rtt_ms']:g} ms" if row.params["rtt_ms"] else "loopback"
        parts = {part: row.figures[part].median for part in PARTS if part in row.figures}
        bars.append((f"{row.variant}, {where}", parts))
    if not bars:
        return None
    title = "A replayed session of edits and tests: where the time goes"
    return stacked_bars(title, bars, PARTS, "seconds, medians of the parts")


def concurrency(results: Results) -> str | None:
    """Lateness against the number of streams."""
    places, lines = _lines(
        best_ways(results.rows("concurrency"), "late p99"), "late p99", "streams"
    )
    if not lines:
        return None
    title = "Lateness of tokens, 99th percentile, against concurrent streams"
    return line_chart(title, places, lines, "streams", "ms")


PLOTS: dict[str, Callable[[Results], str | None]] = {
    "round-trip.svg": round_trip,
    "per-token.svg": per_token,
    "follow-up-ttft.svg": follow_up,
    "network.svg": network,
    "edit-test-replay.svg": replay,
    "concurrency.svg": concurrency,
}
