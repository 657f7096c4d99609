"""The budgets of the architecture, each with what was measured and a verdict made by comparison.

A budget that is not met says why: ``why`` is kept here by whoever finds the cause out, and printed only
beside that verdict. It holds no number, since every number of the page comes from the results.
"""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.lab.record import number, times
from benchmarks.net.follow_up import INCREMENTAL, STREAMED
from benchmarks.net.trips import TIGHT
from benchmarks.page.headlines import find
from benchmarks.page.results import Results, missing
from benchmarks.peers.ways import PINNED
from benchmarks.workshop import commands, warm_runs, workspaces
from benchmarks.workshop.trees import LARGE, SMALL


@dataclass(frozen=True, slots=True)
class Verdict:
    """``is_met`` None: not measured."""

    measured: str
    is_met: bool | None


@dataclass(frozen=True, slots=True)
class Budget:
    """One line of the table; ``judge`` reads the results, ``why`` is the cause when it is not met."""

    what: str
    budget: str
    judge: Callable[[Results], Verdict]
    why: str


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
    dearest = max(found.values(), key=lambda each: each.median)
    cheapest = min(found.values(), key=lambda each: each.median)
    is_flat = dearest.p10 <= cheapest.p90
    said = ", ".join(f"{size}: {number(each.median)} us" for size, each in found.items())
    said += f"; the dearest over the cheapest size {number(dearest.median / cheapest.median)}x,"
    said += f" {'within' if is_flat else 'beyond'} the middle 80 % of their turns"
    name = f"tightloop scripted{PINNED}"
    pinned = [
        figure.median
        for size in SIZES
        if (figure := results.figure("round-trip", name, "ttft", api="websocket", history=size))
    ]
    if pinned:
        said += (
            f"; moved to a core of its own before each turn {number(min(pinned))} to {number(max(pinned))} us"
            if min(pinned) < max(pinned)
            else f"; moved to a core of its own before each turn {number(pinned[0])} us"
        )
    return Verdict(said, is_flat and dearest.median <= 200)


OTHERS = {
    "nginx": "nginx, passing the bytes through,",
    "tightloop scripted": "our server with an engine inside, making the tokens included,",
}
"""What stands beside the cost of a token, to judge it by."""


def per_token_cpu(rate: str, limit_us: float) -> Callable[[Results], Verdict]:
    """CPU of our gateway per token on a WebSocket."""

    def judge(results: Results) -> Verdict:
        figure = results.figure("per-token", "tightloop", "cpu", api="websocket", rate=rate)
        if figure is None:
            return Verdict(missing("per-token"), None)
        said = f"{number(figure.median)} us"
        for name, words in OTHERS.items():
            if other := results.figure("per-token", name, "cpu", api="websocket", rate=rate):
                said += f"; {words} {number(other.median)} us"
        return Verdict(said, figure.median <= limit_us)

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
    said += f" (4 kB of new input, {found[0][0]['cc']})"
    # Trips are whole: what is left of a half is what the ends and the relay compute.
    return Verdict(said, max(medians) < 1.5)


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
    said = (
        f"{number(100 * ratio.median)} % for {params['output']} tokens printed in"
        f" {number(float(params['tool_s']))} s, {params['model']}"
    )
    return Verdict(said, ratio.median <= 0.2)


BODY = ", function body"
"""What the names of those ratios of real projects end with that the budget is about."""


def tests(results: Results) -> Verdict:
    """A run after an edit of a body, cold over warm; judged by the project that gains least."""
    real = results.experiments.get("warm-tests")
    small = results.experiments.get("workshop-tests")
    ratios = [
        *(each for each in (real.ratios if real else []) if each.name.endswith(BODY)),
        *(
            each
            for each in (small.ratios if small else [])
            if (each.of, each.over) == (warm_runs.COLD, warm_runs.EDITED)
        ),
    ]
    if not ratios:
        return Verdict(missing("warm-tests"), None)
    said = "; ".join(
        f"{each.name.removeprefix('time ').removesuffix(BODY)}: {times(each)}" for each in ratios
    )
    replayed = _replayed(results)
    said += (
        f"; a replayed session's tests, all they contain: {number(replayed)}x" if replayed else ""
    )
    return Verdict(said, min(each.median for each in ratios) >= 8)


def _replayed(results: Results) -> float | None:
    """Cold over warm of the tests of the replay."""
    cold = results.figure("edit-test-replay", "classic", "test", rtt_ms=0.0)
    warm = results.figure("edit-test-replay", "tight", "test", rtt_ms=0.0)
    return None if cold is None or warm is None else cold.median / warm.median


def small(
    name: str, path: tuple[str, ...], unit: str, limit: float
) -> Callable[[Results], Verdict]:
    """A number that a small program printed, at most ``limit``."""

    def judge(results: Results) -> Verdict:
        value = results.small_number(name, *path)
        if value is None:
            return Verdict(missing(f"small/{name}"), None)
        return Verdict(f"{number(value)} {unit}", value <= limit)

    return judge


def embedded(results: Results) -> Verdict:
    """Our decode loop over the bare one, whose rounds the machine's own speed pulls apart."""
    path = ("wall", "engine_share_of_bare")
    median, q1, q3 = (
        results.small_number("engine", *path, name) for name in ("median", "q1", "q3")
    )
    if median is None or q1 is None or q3 is None:
        return Verdict(missing("small/engine"), None)
    return Verdict(f"{number(median)}, quartiles {number(q1)} and {number(q3)}", median >= 0.9)


def serving(results: Results) -> Verdict:
    """Judged by what the command starts without options: the bundled model."""
    bundled = results.small_number("starts", "serve_bundled_model", "median_ms")
    scripted = results.small_number("starts", "serve", "median_ms")
    if bundled is None or scripted is None:
        return Verdict(missing("small/starts"), None)
    said = f"{number(bundled)} ms with the bundled model, {number(scripted)} ms without a model"
    return Verdict(said, bundled <= 600)


def command(results: Results) -> Verdict:
    """A command in the persistent sandbox, less the command itself, in the same round."""
    name, column = "workshop-commands", "over the command"
    ours = results.figure(name, commands.OURS, column, series="quick")
    if ours is None:
        return Verdict(missing(name), None)
    said = f"{number(ours.median)} ms"
    for other in commands.BESIDE:
        if figure := results.figure(name, other, column):
            said += f"; {other} {number(figure.median)} ms"
    return Verdict(said, ours.median <= 1.0)


def fresh_workspace(results: Results) -> Verdict:
    """Judged by the tree of some hundred files; the other sizes and ways stand beside it."""
    name, step = "workshop-workspaces", workspaces.FRESH
    ours = results.figure(name, workspaces.OURS, "time", step=step, files=SMALL)
    if ours is None:
        return Verdict(missing(name), None)
    said = []
    for size in (SMALL, LARGE):
        found = {
            row.variant: row.figures["time"].median
            for row in results.rows(name)
            if row.params.get("step") == step and row.params.get("files") == size
        }
        ways = [f"{variant} {number(median)} ms" for variant, median in found.items()]
        said += [f"{size} files: {', '.join(ways)}"] if ways else []
    return Verdict("; ".join(said), ours.median <= 10)


BUDGETS = (
    Budget(
        "round-trip overhead, WebSocket, 4 kB of new input",
        "at most 200 us, flat from 1k to 200k",
        overhead,
        "a turn is CPU time of Python, aiohttp and the event loop (a read, the typed decode, the node, the"
        " events, two writes), and code that runs once after a pause takes about twice what it takes in a"
        " row (design/0015-tight-path.md)",
    ),
    Budget(
        "gateway CPU per streamed token, 1000 tokens/s",
        "at most 20 us",
        per_token_cpu("1000/s", 20),
        "at this pace each token comes alone, and a process is woken up for it to read and to write, which"
        " is all that nginx does; two bare protocols of the same event loop that only forward take more"
        " than the budget on this machine (design/0015-tight-path.md)",
    ),
    Budget(
        "the same where tokens come in batches",
        "at most 3 us",
        per_token_cpu("unpaced", 3),
        "an upstream's every token is an event of its own that is read from JSON, checked and written anew"
        " in Python; batches save the wake-ups and the writes, not that",
    ),
    Budget(
        "network round trips to the first token, warm session",
        "exactly 1",
        round_trips,
        "the new item did not fit the congestion window, or the connection had to be made anew",
    ),
    Budget(
        "first token after a long tool output, streamed prefill over incremental",
        "at most 20 %",
        streamed,
        "the engine prefills more slowly than the tool printed: only the tool's time can be hidden",
    ),
    Budget(
        "embedded decode over the bare llama.cpp loop",
        "at least 0.9",
        embedded,
        "Python's work around llama_decode (sampling, text, events, the other thread's wake-ups) is a fixed"
        " time per token, and a step of a model of three million weights is short: the share falls with"
        " the size of the model",
    ),
    Budget(
        "command in a persistent sandbox, over the command itself",
        "at most 1 ms",
        command,
        "the request goes through Python and an event loop on both sides of the sandbox's socket",
    ),
    Budget(
        "fresh copy-on-write workspace, locked sandbox, command",
        "at most 10 ms",
        fresh_workspace,
        "a candidate is a fork, a few mounts and a message to a sandbox that waits, each a matter of whether a"
        " processor is free; the load at the time stands with the table of workspaces",
    ),
    Budget(
        "tests after an edit, cold pytest over warm",
        "at least 8x",
        tests,
        "the time contains entering the sandbox and the tests themselves, which both ways share",
    ),
    Budget(
        "import tightloop",
        "at most 60 ms",
        small("starts", ("import", "median_ms"), "ms", 60),
        "modules that the package itself imports",
    ),
    Budget(
        "tightloop --help",
        "at most 150 ms",
        small("starts", ("help", "median_ms"), "ms", 150),
        "the interpreter's own start and the imports of the command line",
    ),
    Budget(
        "tightloop serve answering",
        "at most 600 ms",
        serving,
        "imports: the interpreter, aiohttp and our own modules are read and run before the port is open; then"
        " llama.cpp is loaded, and the model with its tokeniser and grammar",
    ),
)
"""In the order of the architecture's table."""


def budget_table(results: Results) -> list[str]:
    """The lines of the Markdown table."""
    lines = ["| what | budget | measured | verdict |", "|---|---|---|---|"]
    for each in BUDGETS:
        verdict = each.judge(results)
        said = {None: "-", True: "met", False: "**not met**"}[verdict.is_met]
        if verdict.is_met is False:
            said += f": {each.why}"
        lines.append(f"| {each.what} | {each.budget} | {verdict.measured} | {said} |")
    return lines
