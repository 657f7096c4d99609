"""Experiment ``edit-test-replay``: a recorded edit-test loop, end to end, classic against tight.

A scripted engine replays thirty rounds of real edits and test runs at a stated decode rate; the
agent, its tools, the sandboxes and the tests are real. The two paths are the demo's
(``tightloop.bench.paths``): classic opens a connection a turn, sends the history again, enters the
sandbox for each command and starts pytest cold; tight does each of these once. Over loopback, and
over an emulated network with TLS where the system lets us make one.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import orjson

from benchmarks.lab.record import Experiment, Figure, Ratio, Row, paired_ratio, this_machine
from benchmarks.net import namespaces, tls_front
from benchmarks.net.child import ready_child, run_child
from benchmarks.net.link import FAR_ADDRESS, Link
from benchmarks.net.recording import recording
from benchmarks.net.replay_client import Plan, Replay
from tightloop.bench.bugs import choose, load_bugs
from tightloop.trace.ledger import PARTS

NAME = "edit-test-replay"
PATHS = ("classic", "tight")
NUM_ROUNDS, QUICK_ROUNDS = 30, 6
NUM_PAIRS, QUICK_PAIRS = 5, 2
TOKENS_PER_S = 1000.0
RTT_MS = 50.0
RUN_LIMIT_S = 900.0
BUG_SEED = 1


async def run(*, is_quick: bool, say: Callable[[str], None]) -> Experiment:
    """The whole experiment. Raises ChildError when a replay failed."""
    num_rounds = QUICK_ROUNDS if is_quick else NUM_ROUNDS
    num_pairs = QUICK_PAIRS if is_quick else NUM_PAIRS
    bug = choose(load_bugs(), 1, BUG_SEED)[0]
    rows: list[Row] = []
    ratios: list[Ratio] = []
    isolation = ""
    with tempfile.TemporaryDirectory(prefix="tightloop-replay-") as folder:
        home = Path(folder)
        script = home / "script.json"
        script.write_bytes(orjson.dumps(recording(bug, num_rounds)))
        for rtt_ms in (0.0, RTT_MS):
            reason = (namespaces.why_not() or tls_front.why_not()) if rtt_ms else None
            if reason is not None:
                say(f"{NAME}: {rtt_ms:g} ms: not measured: {reason}")
                rows += [Row(path, {"rtt_ms": rtt_ms}, {}, missing=reason) for path in PATHS]
                continue
            say(f"{NAME}: {num_pairs} pairs of {num_rounds} rounds, {rtt_ms:g} ms")
            plan = Plan(url="", model="paced", bug=bug.id, pairs=num_pairs)
            replays = await replay(plan, home, script, rtt_ms)
            isolation = replays[0].isolation
            rows += rows_of(replays, rtt_ms)
            ratios += ratios_of(replays, rtt_ms)
    return Experiment(
        name=NAME,
        title=f"{num_rounds} rounds of editing and testing, end to end, classic against tight",
        settings={
            "quick": is_quick,
            "rounds": num_rounds,
            "pairs": num_pairs,
            "tokens_per_s": TOKENS_PER_S,
            "bug": bug.id,
            "isolation": isolation,
        },
        machine=this_machine(),
        rows=rows,
        ratios=ratios,
        notes=[
            f"The model is a script played at {TOKENS_PER_S:g} tokens/s without any prefill: what a"
            " fast host with a prompt cache leaves to the rest of the loop.",
            "Classic opens a connection a turn, resends the history, enters the sandbox for every"
            " command and starts pytest anew; tight does each once. Both ran the same calls.",
            "Parts are the ledger's, summed over a replay; a part that a tool hides is the tool's.",
            "Over loopback without TLS; over the network with TLS 1.3 and the system's congestion"
            " control on both ends.",
        ],
    )


async def replay(plan: Plan, home: Path, script: Path, rtt_ms: float) -> list[Replay]:
    """All replays at one distance."""
    server = [
        *(sys.executable, "-m", "benchmarks.net.server"),
        *("--script", str(script), "--tokens-per-s", f"{TOKENS_PER_S:g}"),
    ]
    client = [sys.executable, "-m", "benchmarks.net.replay_client", str(home / "plan.json")]
    environment: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        if rtt_ms:
            certificate, key = tls_front.make_certificate(home, FAR_ADDRESS)
            link = await stack.enter_async_context(Link(rtt_ms / 1e3, home / "counters"))
            tls = ["--host", FAR_ADDRESS, "--certificate", str(certificate), "--key", str(key)]
            server, client = link.far(*server, *tls), link.near(*client)
            environment = {"SSL_CERT_FILE": str(certificate)}
        ready = await stack.enter_async_context(ready_child(server))
        (home / "plan.json").write_bytes(
            msgspec.json.encode(msgspec.structs.replace(plan, url=ready["url"]))
        )
        printed = await run_child(client, RUN_LIMIT_S, environment)
    replays = msgspec.convert(printed, list[Replay])
    for each in replays:
        if not each.is_fixed:
            raise RuntimeError(f"replay {each.pair} over {each.path} left the bug: {each.status}")
    return replays


def rows_of(replays: Sequence[Replay], rtt_ms: float) -> list[Row]:
    """A row a path, with every part of its ledger."""
    rows = []
    for path in PATHS:
        runs = [each for each in replays if each.path == path]
        figures = {
            "wall": Figure.of([each.wall_s for each in runs], "s"),
            "ttft": Figure.of([1e3 * each.ttft_s for each in runs], "ms"),
            **{part: Figure.of([each.parts[part] for each in runs], "s") for part in PARTS},
            "setup": Figure.of([each.setup_s for each in runs], "s"),
            "round_trips": Figure.of([float(each.num_round_trips) for each in runs], "trips"),
            "ledger_error": Figure.of([100 * each.ledger_error for each in runs], "%"),
        }
        rows.append(Row(path, {"rtt_ms": rtt_ms}, figures))
    return rows


def ratios_of(replays: Sequence[Replay], rtt_ms: float) -> list[Ratio]:
    """Classic over tight, pair by pair: everything, tools and tests, and what is not decode."""
    classic, tight = (
        sorted((each for each in replays if each.path == path), key=lambda each: each.pair)
        for path in PATHS
    )
    figures: dict[str, Callable[[Replay], float]] = {
        "wall": lambda each: each.wall_s,
        "tools and tests": lambda each: each.parts["tool"] + each.parts["test"],
        "network and server": lambda each: each.parts["network"] + each.parts["server"],
        "all but decode": lambda each: each.wall_s - each.parts["decode"],
        "ttft": lambda each: each.ttft_s,
    }
    return [
        paired_ratio(
            f"{name}, {rtt_ms:g} ms", "classic", "tight", [*map(of, classic)], [*map(of, tight)]
        )
        for name, of in figures.items()
    ]
