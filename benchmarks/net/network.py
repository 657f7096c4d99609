"""Experiment ``network``: time to first token over emulated network round trips, with TLS 1.3.

Client and server live in network namespaces of their own, joined by a relay that holds every
packet back (``relay``). The engine is scripted and answers at once, so what is seen is connections,
TCP windows and the server's own work. Six ways:

- ``new connection``: HTTPS, the whole conversation, a connection a turn;
- ``kept, defaults``: the same over a connection that is kept as client libraries keep it (5 s);
- ``kept, tuned``: kept for ten minutes, warm, and the sender's kernel does not fall back to slow
  start after an idle time (``net.ipv4.tcp_slow_start_after_idle=0``, which needs root);
- ``tight``: one WebSocket, only the new item;
- ``tight, streamed``: as tight, and the output is also sent while the tool prints it;
- ``tight, tuned``: as tight, with the kernel setting of ``kept, tuned``.

The tuned ways need a kernel setting, on both sides, and therefore a link of their own; both links
run at once. No socket option stands for the setting.
"""

import asyncio
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.lab.record import Experiment, Figure, Ratio, Row, paired_ratio, this_machine
from benchmarks.net import namespaces, network_engine, tls_front
from benchmarks.net.child import ChildError, ready_child, run_child
from benchmarks.net.engine_client import WAYS as ENGINE_WAYS
from benchmarks.net.link import FAR_ADDRESS, Link, LinkError, Meter
from benchmarks.net.network_client import Block, Plan
from benchmarks.net.trips import (
    KEPT,
    NEW,
    STREAMED,
    TIGHT,
    TIGHT_TUNED,
    TUNED,
    Sample,
    tls_version,
)

NAME = "network"
HISTORIES = {"10k": 53_000, "50k": 209_000, "200k": 789_000}
"""Nominal tokens and bytes of JSON."""

SMALL, LARGE = 4096, 30_000
DEFAULT_WAYS = (NEW, KEPT, TIGHT)
TUNED_WAYS = (TUNED, TIGHT_TUNED)
MIDDLE_MS = 50.0
RUN_LIMIT_S = 240.0
FAILURES = (ChildError, LinkError)


@dataclass(frozen=True, slots=True)
class Condition:
    """One state of the network, and what is measured in it."""

    rtt_ms: float
    congestion_control: str
    blocks: tuple[Block, ...]
    mbit_per_s: float | None = None


COMPARED = {
    TIGHT: (NEW, KEPT, TUNED),
    STREAMED: (NEW, KEPT, TUNED, TIGHT),
    TIGHT_TUNED: (TUNED, TIGHT),
}
"""What each of our ways is compared with. ``TIGHT`` over ``TUNED`` compares an untuned connection
with a tuned one; the comparison of like with like is ``TIGHT_TUNED`` over ``TUNED``."""

Key = tuple[Condition, str, str, int, float]
"""Condition, way, history, bytes of the new item, idle time."""


def block(name: str, new_bytes: int, idle_s: float, rounds: int) -> Block:
    """All ways at one size."""
    ways: tuple[str, ...] = (*DEFAULT_WAYS, *TUNED_WAYS)
    if new_bytes == LARGE:
        ways += (STREAMED,)
    size = HISTORIES[name]
    return Block(
        ways=ways,
        history=name,
        history_bytes=size,
        new_bytes=new_bytes,
        idle_s=idle_s,
        rounds=rounds,
    )


def conditions(controls: Sequence[str], *, is_quick: bool) -> list[Condition]:
    """Everything there is to measure. The first one, without distance, is the floor of the rest."""
    rounds = 3 if is_quick else 6
    small = [block(name, SMALL, 0.6, rounds) for name in HISTORIES]
    floor = [block(name, SMALL, 0.2, rounds) for name in HISTORIES]
    large = block("50k", LARGE, 0.6, rounds)
    found = [Condition(0, controls[0], (*floor, block("50k", LARGE, 0.2, rounds)))]
    for rtt_ms in (20.0,) if is_quick else (20.0, 50.0, 100.0):
        found.append(Condition(rtt_ms, controls[0], (*small, large)))
        # The other controls in full at the middle distance, and at one size at the others.
        blocks = (*small, large) if rtt_ms == MIDDLE_MS else (small[1],)
        found += [Condition(rtt_ms, name, blocks) for name in controls[1:]]
    if not is_quick:
        long_tool = block("50k", SMALL, 6.0, 4)
        found.append(Condition(MIDDLE_MS, controls[0], (long_tool,)))
        found.append(Condition(MIDDLE_MS, controls[0], (small[1], small[2]), mbit_per_s=50))
    return found


def available_controls() -> list[str]:
    """Those of cubic and bbr that this kernel has, then whatever else is the default."""
    offered = namespaces.ipv4("tcp_available_congestion_control").split()
    known: list[str] = [name for name in ("cubic", "bbr") if name in offered]
    return known or [namespaces.ipv4("tcp_congestion_control")]


async def run(*, is_quick: bool, say: Callable[[str], None]) -> Experiment:
    """The whole experiment; rows without figures where there can be no link."""
    reason = namespaces.why_not() or tls_front.why_not()
    settings: dict[str, str | int | float | bool] = {"quick": is_quick, "tls": tls_version()}
    if reason is not None:
        say(f"network: not measured: {reason}")
        return impossible(reason, settings)
    controls = available_controls()
    settings["system_congestion_control"] = namespaces.ipv4("tcp_congestion_control")
    samples: dict[Key, list[Sample]] = {}
    missing: list[Row] = []
    num_dropped = 0
    for condition in conditions(controls, is_quick=is_quick):
        cap = f", {condition.mbit_per_s:g} Mbit/s" if condition.mbit_per_s else ""
        say(f"network: {condition.rtt_ms:g} ms, {condition.congestion_control}{cap}")
        for outcome in await measure(condition):
            num_dropped += outcome.num_dropped
            samples |= _grouped(condition, outcome.samples)
            if outcome.reason:
                say(f"  not measured: {outcome.reason}")
                missing += unmeasured(condition, outcome)
    settings["packets_dropped"] = num_dropped
    rows, ratios = rows_of(samples) + missing, ratios_of(samples)
    case = network_engine.QUICK if is_quick else network_engine.CASE
    control = controls[0]
    say(f"network: {network_engine.RTT_MS:g} ms, {control}, {case.model}")
    try:
        turns = await network_engine.measure(case, control)
    except FAILURES as error:
        params = network_engine.params_of(case, control)
        rows += [Row(way, params, {}, missing=str(error)) for way in ENGINE_WAYS]
    else:
        rows += network_engine.rows_of(case, control, turns)
        ratios += network_engine.ratios_of(case, control, turns)
    return _experiment(settings, rows, ratios)


def impossible(reason: str, settings: dict[str, str | int | float | bool]) -> Experiment:
    """The experiment where there can be no link: every way with the reason."""
    rows = [Row(way, {}, {}, missing=reason) for way in (*DEFAULT_WAYS, *TUNED_WAYS, STREAMED)]
    return _experiment(settings, rows, [])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one link gave; ``reason`` says why it gave nothing."""

    is_tuned: bool
    samples: list[Sample]
    num_dropped: int = 0
    reason: str = ""


async def measure(condition: Condition) -> list[Outcome]:
    """What both links gave under one condition."""
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(outcome_of(condition, is_tuned=is_tuned))
            for is_tuned in (False, True)
        ]
    return [task.result() for task in tasks]


async def outcome_of(condition: Condition, *, is_tuned: bool) -> Outcome:
    """What one link gave; a failure is an outcome, too."""
    try:
        samples, num_dropped = await measure_link(condition, is_tuned=is_tuned)
    except FAILURES as error:
        return Outcome(is_tuned, [], reason=str(error))
    return Outcome(is_tuned, samples, num_dropped)


def unmeasured(condition: Condition, outcome: Outcome) -> list[Row]:
    """A row for each way of a link that gave nothing."""
    ways = dict.fromkeys(
        way for each in _blocks(condition, is_tuned=outcome.is_tuned) for way in each.ways
    )
    params: dict[str, str | int | float | bool] = {
        "rtt_ms": condition.rtt_ms,
        "cc": condition.congestion_control,
    }
    return [Row(way, params, {}, missing=outcome.reason) for way in ways]


async def measure_link(condition: Condition, *, is_tuned: bool) -> tuple[list[Sample], int]:
    """The samples of one link with its own server and client, and the packets it dropped."""
    with tempfile.TemporaryDirectory(prefix="tightloop-net-") as folder:
        home = Path(folder)
        certificate, key = tls_front.make_certificate(home, FAR_ADDRESS)
        counters = home / "counters"
        async with Link(condition.rtt_ms / 1e3, counters, condition.mbit_per_s) as link:
            server = [
                *(sys.executable, "-m", "benchmarks.net.server", "--host", FAR_ADDRESS),
                *("--certificate", str(certificate), "--key", str(key)),
                *("--congestion-control", condition.congestion_control),
                *(["--keep-window"] if is_tuned else []),
            ]
            async with ready_child(link.far(*server)) as ready:
                plan = Plan(
                    url=ready["url"],
                    blocks=_blocks(condition, is_tuned=is_tuned),
                    congestion_control=condition.congestion_control,
                    slow_start_after_idle=not is_tuned,
                )
                (home / "plan.json").write_bytes(msgspec.json.encode(plan))
                client = link.near(
                    sys.executable, "-m", "benchmarks.net.network_client", str(home / "plan.json")
                )
                printed = await run_child(client, RUN_LIMIT_S, {"SSL_CERT_FILE": str(certificate)})
            meter = Meter(counters)
            dropped = meter.read().num_dropped
            meter.close()
    return msgspec.convert(printed, list[Sample]), dropped


def _blocks(condition: Condition, *, is_tuned: bool) -> tuple[Block, ...]:
    wanted = []
    for each in condition.blocks:
        ways = tuple(way for way in each.ways if (way in TUNED_WAYS) == is_tuned)
        wanted.append(msgspec.structs.replace(each, ways=ways))
    return tuple(wanted)


def _grouped(condition: Condition, samples: Iterable[Sample]) -> dict[Key, list[Sample]]:
    found: defaultdict[Key, list[Sample]] = defaultdict(list)
    for each in samples:
        found[condition, each.way, each.history, each.new_bytes, each.idle_s].append(each)
    return found


def params_of(key: Key) -> dict[str, str | int | float | bool]:
    """What a row says of its condition."""
    condition, _, history, new_bytes, idle_s = key
    params: dict[str, str | int | float | bool] = {
        "rtt_ms": condition.rtt_ms,
        "cc": condition.congestion_control,
        "history": history,
        "new_kB": round(new_bytes / 1000),
        "idle_s": idle_s,
    }
    if condition.mbit_per_s is not None:
        params["mbit_per_s"] = condition.mbit_per_s
    return params


def rows_of(samples: dict[Key, list[Sample]]) -> list[Row]:
    """A row for each way under each condition; ``round_trips`` counts those to the first token.

    They are what the distance adds to the same way without distance, in units of the distance. Load
    can only lengthen a turn, so the fastest one without distance is what is taken off.
    """
    floors = {
        key[1:4]: min(each.ttft_s for each in series)
        for key, series in samples.items()
        if key[0].rtt_ms == 0
    }
    rows = []
    for key, series in samples.items():
        figures = {
            "ttft": Figure.of([1e3 * each.ttft_s for each in series], "ms"),
            "round_trip": Figure.of([1e3 * each.round_trip_s for each in series], "ms"),
            "sent": Figure.of([each.request_bytes / 1e3 for each in series], "kB"),
        }
        rtt_s = key[0].rtt_ms / 1e3
        if rtt_s and key[1:4] in floors:
            added = [(each.ttft_s - floors[key[1:4]]) / rtt_s for each in series]
            figures["round_trips"] = Figure.of(added, "RTT")
        rows.append(Row(key[1], params_of(key), figures))
    return rows


def ratios_of(samples: dict[Key, list[Sample]]) -> list[Ratio]:
    """Tight over each baseline, turn by turn; streamed and tuned over tight; both tuned."""
    found = []
    for key, series in samples.items():
        condition, way, history, new_bytes, idle_s = key
        for over in COMPARED.get(way, ()):
            base = samples.get((condition, over, history, new_bytes, idle_s))
            if base is None or len(base) != len(series):
                continue
            cap = f" {condition.mbit_per_s:g} Mbit/s" if condition.mbit_per_s else ""
            place = (
                f"{condition.rtt_ms:g} ms {condition.congestion_control}{cap} {history}"
                f" +{round(new_bytes / 1000)} kB idle {idle_s:g} s"
            )
            of_values = [each.overhead_s for each in series]
            over_values = [each.overhead_s for each in base]
            found.append(paired_ratio(f"overhead {place}", way, over, of_values, over_values))
    return found


def _experiment(
    settings: dict[str, str | int | float | bool], rows: list[Row], ratios: list[Ratio]
) -> Experiment:
    return Experiment(
        name=NAME,
        title="Time to first token over emulated network round trips, TLS 1.3",
        settings=settings,
        machine=this_machine(),
        rows=rows,
        ratios=ratios,
        notes=[
            "Both ends use the congestion control named; real TCP and TLS between two network"
            " namespaces; no loss, and no bandwidth cap unless a row says so.",
            "TLS ends in a small front in the server's namespace and process, as with a reverse proxy:"
            " tightloop's server speaks plain HTTP.",
            f"'{KEPT}' keeps idle connections for 5 s, as httpx and the OpenAI SDK do.",
            f"'{TUNED}' and '{TIGHT_TUNED}' need root: net.ipv4.tcp_slow_start_after_idle=0 on both sides. It"
            " is the sender of the requests that it matters to, and no socket option stands for it.",
            f"The window of '{TIGHT}' and '{TIGHT_TUNED}' was opened by the history, sent once; while a tool"
            " runs, an untuned one falls back to ten packets.",
            "The ratios are of the round-trip overhead, TTFT less the engine's time, which is 0.1 ms here.",
            "Round trips: TTFT less the fastest of the same way without distance, over the RTT. BBR paces"
            " even the few packets of a small frame over a part of a round trip.",
            "Rows with a model are turns on a real engine whose model has random weights; the full resends"
            " find the engine warm.",
            f"'{STREAMED}': its output was sent in pieces while the tool ran, and whole at the end; what"
            " it gains here is a window that is open. The scripted engine prefills nothing.",
        ],
    )
