"""The text of docs/measured.md: templates, whose every number comes from the results."""

from collections.abc import Callable, Sequence

from benchmarks.lab.record import Row
from benchmarks.page.budgets import budget_table
from benchmarks.page.headlines import (
    claim_lines,
    follow_up_lines,
    loopback_lines,
    overhead_lines,
    per_token_lines,
    ttft_lines,
)
from benchmarks.page.peer_ratios import peer_lines
from benchmarks.page.results import Results, missing
from benchmarks.page.tables import circumstances, listing, pivot
from benchmarks.page.workshop import workshop_lines

INTRODUCTION = """\
# Measured

Made by `python -m benchmarks.page` from the files in `benchmarks/results`; no number on this page was
typed. `make bench` measures everything again. Figures are medians with the middle 80 % in brackets; ratios
and reductions have 95 % intervals from resampling, turn by turn where both ways were measured in the same
rounds; those of fewer than five rounds have none, and say of how many they are. Two cores are few: client,
server and upstream share them, so only what was measured in one run can be compared."""

QUICK = """\
> **A rough look only.** These results come from a quick run, or from few samples on a busy machine: {names}."""

HEADLINES = """\
## The three headline reductions

Against three baselines, all of which send the whole conversation with every turn over HTTPS:

- **new connection**: a connection for each turn;
- **kept, defaults**: kept for 5 s after use, as httpx and the OpenAI SDK keep it;
- **kept, tuned**: kept for ten minutes, warm, from a sender whose kernel does not fall back to slow start
  after an idle time. That needs root on the client, and is as well as a sender can do."""

CLAIMS = """\
What the news story said, beside what the same ideas are worth here: the medians of all conditions of the tables
below, from the best to the worst."""

OVERHEAD = """\
### Round-trip overhead

Time to first token less the engine's own time, over an emulated network; `tight` (a WebSocket and the new item
only) against each baseline. Below zero is less.

The kernel setting helps a WebSocket as it helps HTTP, so `kept, tuned` is fairly compared with a WebSocket whose
kernel is tuned as well: the column **both tuned**. The column before it holds an *untuned* WebSocket against a
tuned connection: where the new item is larger than ten packets, what it loses there is the window that the kernel
took back while the tool ran. `tight, streamed` keeps its window open by what it sends meanwhile, without root."""

LOOPBACK = """\
Without any network: time to first token of tightloop's own server, whose scripted engine takes none, so that all of
it is overhead. Windows and idle times play no part there, so a kept connection is one baseline."""

FOLLOW_UP = """\
Over loopback, where only the engine and what it knows make the difference. Random weights of its size stand for the
bundled model, which reads the code that it repairs and not the conversation:"""

PER_TOKEN = """\
### Per-token overhead

CPU of the server per streamed token on a WebSocket, against the same answer elsewhere. How a connection was
opened and kept changes nothing for its tokens, so the three baselines are one here: server-sent events over HTTP,
of tightloop itself and of each peer. Columns are token rates."""

TTFT = """\
### Time to first token

With a real engine behind the same network: what a person waits for. The baselines find the engine warm, so
what they pay for is the connection and the resent history; the model's own time on the new output is in all of
them, and only streamed prefill hides it."""

AGAINST_PEERS = """\
## Against every peer

Below zero: ours takes less. **In bold**: a reduction below 20 %, none at all, or one whose interval reaches zero.
Of each figure there are up to two tables: our WebSocket, which is the tight path, against each peer over each API that it
offers; and ours asked in the very way that the peer is. `added` is what a gateway adds to the answer of the upstream
itself. `make bench` and `python -m benchmarks.lab.report` print these ratios, and those of every other of our ways."""

Body = Callable[[Sequence[Row]], list[str]]


def _network(rows: Sequence[Row]) -> list[str]:
    by = ("rtt_ms", "cc", "history", "new_kB", "new", "idle_s", "mbit_per_s", "model")
    return [*pivot(rows, "ttft", by), *pivot(rows, "round_trips", by)]


def _follow_up(rows: Sequence[Row]) -> list[str]:
    by = ("model", "history", "output", "tool_s")
    return [*pivot(rows, "ttft", by), *pivot(rows, "cached", by)]


def _round_trip(rows: Sequence[Row]) -> list[str]:
    return [
        line
        for figure in ("ttft", "added", "cpu", "reconnected")
        for line in pivot(rows, figure, ("variant", "api"), "history")
    ]


def _per_token(rows: Sequence[Row]) -> list[str]:
    return [
        line
        for figure in ("cpu", "transit", "delivered")
        for line in pivot(rows, figure, ("variant", "api"), "rate")
    ]


def _concurrency(rows: Sequence[Row]) -> list[str]:
    names = ("late p50", "late p99", "cpu")
    tables = [pivot(rows, name, ("variant", "api"), "streams") for name in names]
    idle = pivot(rows, "memory", ("variant", "api"), "streams")
    return [line for table in [*tables, idle] for line in table]


SECTIONS: tuple[tuple[str, str, Body], ...] = (
    ("round-trip", "Round trip against history", _round_trip),
    ("engine-round-trip", "Round trip on a real engine, beside llama.cpp's own server", listing),
    ("per-token", "Per streamed token", _per_token),
    ("follow-up-ttft", "First token of a follow-up turn", _follow_up),
    ("network", "Over network round trips", _network),
    ("edit-test-replay", "An edit-test loop, replayed", listing),
    ("concurrency", "Concurrency", _concurrency),
)


def page(results: Results, plots: Sequence[str]) -> str:
    """The whole page; ``plots`` are the names of those that were drawn."""
    parts = [INTRODUCTION, ""]
    rough = [name for name, each in results.experiments.items() if each.settings.get("quick")]
    if rough:
        parts += [QUICK.format(names=", ".join(rough)), ""]
    parts += [HEADLINES, "", CLAIMS, "", *claim_lines(results), ""]
    parts += [OVERHEAD, "", *overhead_lines(results), ""]
    parts += [LOOPBACK, "", *loopback_lines(results), ""]
    parts += [PER_TOKEN, "", *per_token_lines(results), "", TTFT, "", *ttft_lines(results), ""]
    parts += [FOLLOW_UP, "", *follow_up_lines(results), ""]
    parts += ["## Budgets", "", *budget_table(results), ""]
    parts += [*workshop_lines(results), AGAINST_PEERS, "", *peer_lines(results)]
    for name, title, body in SECTIONS:
        parts += [f"## {title}", ""]
        experiment = results.experiments.get(name)
        if experiment is None:
            parts += [f"{missing(name).capitalize()}.", ""]
            continue
        if f"{name}.svg" in plots:
            parts += [f"![{experiment.title}](plots/{name}.svg)", ""]
        parts += body(results.rows(name))
        parts += circumstances(experiment)
    return "\n".join(line.rstrip() for line in parts).rstrip() + "\n"
