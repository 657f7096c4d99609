"""The budgets of the architecture, each with what was measured and a verdict made by comparison."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.lab.record import number
from benchmarks.net.follow_up import INCREMENTAL, STREAMED
from benchmarks.net.trips import TIGHT
from benchmarks.page.headlines import find
from benchmarks.page.results import Results, missing


@dataclass(frozen=True, slots=True)
class Verdict:
    """``is_met`` None: not measured. ``why`` explains a limit that was not met."""

    measured: str
    is_met: bool | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """One line of the table; ``judge`` reads the results."""

    what: str
    budget: str
    judge: Callable[[Results], Verdict]


SIZES = ("1k", "10k", "50k", "200k")


def overhead(results: Results) -> Verdict:
    """Time to first token of our server, whose engine takes none, over a WebSocket, at every size."""
    found = {
        size: figure
        for size in SIZES
        if (
            figure := results.figure(
                "round-trip", "tightloop scripted", "ttft", api="websocket", history=size
            )
        )
    }
    if not found:
        return Verdict(missing("round-trip"), None)
    medians = [figure.median for figure in found.values()]
    is_met = max(medians) <= 200
    said = ", ".join(f"{size}: {number(each.median)} us" for size, each in found.items())
    why = (
        "each turn follows a pause, after which the same Python takes about twice its time"
        " (design/0015-tight-path.md); what does not grow with the history is met"
    )
    return Verdict(said, is_met, "" if is_met else why)


def per_token_cpu(rate: str, limit_us: float) -> Callable[[Results], Verdict]:
    """CPU of our gateway per token on a WebSocket."""

    def judge(results: Results) -> Verdict:
        figure = results.figure("per-token", "tightloop", "cpu", api="websocket", rate=rate)
        if figure is None:
            return Verdict(missing("per-token"), None)
        is_met = figure.median <= limit_us
        why = "" if is_met else "a wake-up for every token, on a machine whose cores are shared"
        return Verdict(f"{number(figure.median)} us", is_met, why)

    return judge


def round_trips(results: Results) -> Verdict:
    """Of a warm session, where nothing paces: the first congestion control measured."""
    found = [
        (row.params, row.figures["round_trips"])
        for row in results.rows("network")
        if row.variant == TIGHT
        and "round_trips" in row.figures
        and row.params.get("new_kB") == 4
        and row.params.get("cc") == "cubic"
        and "mbit_per_s" not in row.params
    ]
    if not found:
        return Verdict(missing("network"), None)
    medians = [figure.median for _, figure in found]
    said = f"{number(min(medians))} to {number(max(medians))} RTT over {len(found)} conditions"
    is_met = max(medians) < 1.1
    why = "" if is_met else "counted by time, which the load of the machine lengthens"
    return Verdict(said, is_met, why)


def streamed(results: Results) -> Verdict:
    """Streamed prefill over incremental, for the largest output measured."""
    experiment = results.experiments.get("follow-up-ttft")
    rows = [row for row in results.rows("follow-up-ttft") if row.variant == STREAMED]
    if experiment is None or not rows:
        return Verdict(missing("follow-up-ttft"), None)
    row = max(rows, key=lambda each: float(each.params["output"]))
    params = row.params
    name = f"ttft {params['model']} {params['history']}+{params['output']}"
    ratio = find(experiment, STREAMED, INCREMENTAL, name)
    if ratio is None:
        return Verdict(missing("follow-up-ttft"), None)
    is_met = ratio.median <= 0.2
    said = (
        f"{number(100 * ratio.median)} % for {params['output']} tokens printed in"
        f" {number(float(params['tool_s']))} s, {params['model']}"
    )
    why = "the engine prefills more slowly than the tool printed: only its time can be hidden"
    return Verdict(said, is_met, "" if is_met else why)


def tests(results: Results) -> Verdict:
    """Tests of the replay, cold over warm."""
    cold = results.figure("edit-test-replay", "classic", "test", rtt_ms=0.0)
    warm = results.figure("edit-test-replay", "tight", "test", rtt_ms=0.0)
    if cold is None or warm is None:
        return Verdict(missing("edit-test-replay"), None)
    times = cold.median / warm.median
    is_met = times >= 8
    why = "" if is_met else "the time contains entering the sandbox and the tests themselves"
    return Verdict(f"{number(times)}x, same verdict after every replay", is_met, why)


def small(
    name: str, path: tuple[str, ...], unit: str, limit: float, *, is_least: bool = False
) -> Callable[[Results], Verdict]:
    """A number that a small program printed, at most ``limit``, or at least."""

    def judge(results: Results) -> Verdict:
        value = results.small_number(name, *path)
        if value is None:
            return Verdict(missing(f"small/{name}"), None)
        is_met = value >= limit if is_least else value <= limit
        return Verdict(f"{number(value)} {unit}".rstrip(), is_met)

    return judge


def command(results: Results) -> Verdict:
    """A command in the persistent sandbox, less the command itself."""
    inside = results.small_number("sandbox", "commands", "persistent", "median_ms")
    alone = results.small_number("sandbox", "commands", "spawn", "median_ms")
    if inside is None or alone is None:
        return Verdict(missing("small/sandbox"), None)
    said = f"{number(inside)} ms in all, {number(alone)} ms for the command spawned directly"
    return Verdict(said, inside - alone <= 1.0)


BUDGETS = (
    Budget("round-trip overhead, WebSocket, 4 kB of new input", "at most 200 us, flat from 1k to 200k", overhead),
    Budget("gateway CPU per streamed token, 1000 tokens/s", "at most 20 us", per_token_cpu("1000/s", 20)),
    Budget("the same where tokens come in batches", "at most 3 us", per_token_cpu("unpaced", 3)),
    Budget("network round trips to the first token, warm session", "exactly 1", round_trips),
    Budget("first token after a long tool output, streamed prefill over incremental", "at most 20 %", streamed),
    Budget("embedded decode over the bare llama.cpp loop", "at least 0.9", small("engine", ("wall", "engine_share_of_bare", "median"), "", 0.9, is_least=True)),
    Budget("command in a persistent sandbox, over the command itself", "at most 1 ms", command),
    Budget("fresh copy-on-write workspace, locked sandbox, command", "at most 10 ms", small("sandbox", ("workspaces", "view_and_command_in_new_sandbox", "median_ms"), "ms", 10)),
    Budget("tests after an edit, cold pytest over warm", "at least 8x", tests),
    Budget("import tightloop", "at most 60 ms", small("starts", ("import", "median_ms"), "ms", 60)),
    Budget("tightloop --help", "at most 150 ms", small("starts", ("help", "median_ms"), "ms", 150)),
    Budget("tightloop serve answering", "at most 600 ms", small("starts", ("serve", "median_ms"), "ms", 600)),
)  # fmt: skip
"""In the order of the architecture's table."""


def budget_table(results: Results) -> list[str]:
    """The lines of the Markdown table."""
    lines = ["| what | budget | measured | verdict |", "|---|---|---|---|"]
    for each in BUDGETS:
        verdict = each.judge(results)
        said = {None: "-", True: "met", False: "**not met**"}[verdict.is_met]
        if verdict.why:
            said += f": {verdict.why}"
        lines.append(f"| {each.what} | {each.budget} | {verdict.measured} | {said} |")
    return lines
