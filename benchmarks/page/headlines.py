"""The three headline reductions, each against three baselines, with 95 % intervals."""

from collections.abc import Sequence

from benchmarks.lab.record import MIN_FOR_INTERVAL, Experiment, Ratio
from benchmarks.net.follow_up import COLD, INCREMENTAL, WARM
from benchmarks.net.follow_up import STREAMED as STREAMED_PREFILL
from benchmarks.net.trips import KEPT, NEW, STREAMED, TIGHT, TIGHT_TUNED, TUNED
from benchmarks.page.results import Results, missing
from benchmarks.peers.ways import PINNED

BASELINES = (NEW, KEPT, TUNED)
BOTH_TUNED = "both tuned"
"""Like with like: ``TIGHT_TUNED`` over ``TUNED``, in the row of ``TIGHT``."""

OURS_WEBSOCKET = "tightloop, websocket"
OURS_SCRIPTED = "tightloop scripted, websocket"
SMALL_PERCENT = 20.0
"""A reduction below this is called small."""


def reduction(ratio: Ratio | None) -> str:
    """``-81 % [-83, -79]`` for a ratio of ours over a baseline's; without an interval for a few rounds."""
    if ratio is None:
        return "not measured"
    if ratio.num < MIN_FOR_INTERVAL:
        return f"{_signed(100 * (ratio.median - 1))} % (of {ratio.num})"
    ends = sorted(100 * (end - 1) for end in (ratio.low, ratio.high))
    return f"{_signed(100 * (ratio.median - 1))} % [{_signed(ends[0])}, {_signed(ends[1])}]"


def _signed(value: float) -> str:
    return f"{value:+.0f}" if round(value) else "0"


def find(experiment: Experiment, of: str, over: str, name: str) -> Ratio | None:
    """The ratio of that name, if it was measured."""
    wanted = (of, over, name)
    return next(
        (each for each in experiment.ratios if (each.of, each.over, each.name) == wanted), None
    )


def claim_lines(results: Results) -> list[str]:
    """What the article says, and in how many of the conditions measured it is reached here."""
    lines = [
        "| the article's figure | ours against | reductions here | reached in |",
        "|---|---|---|---|",
    ]
    network, tokens = (results.experiments.get(name) for name in ("network", "per-token"))
    trips = [
        (
            "80 % lower round-trip overhead",
            f"{TIGHT}, against {over}",
            80.0,
            "overhead",
            TIGHT,
            over,
        )
        for over in BASELINES
    ]
    trips.append(
        (
            "80 % lower round-trip overhead",
            f"{TIGHT}, both tuned",
            80.0,
            "overhead",
            TIGHT_TUNED,
            TUNED,
        )
    )
    trips += [
        ("50 % lower time to first token", f"{of}, against {over}", 50.0, "ttft", of, over)
        for of in (TIGHT, STREAMED)
        for over in BASELINES
    ]
    for claim, against, percent, figure, of, over in trips:
        found = [
            ratio
            for ratio in (network.ratios if network else [])
            if ratio.name.startswith(f"{figure} ") and (ratio.of, ratio.over) == (of, over)
        ]
        lines.append(f"| {claim} | {against} | {_reached(found, percent)} |")
    ratios = tokens.ratios if tokens else []
    peers = {
        ratio.of
        for ratio in ratios
        if ratio.over == OURS_WEBSOCKET and ratio.name.startswith("cpu ") and PINNED not in ratio.of
    }
    for peer in sorted(peers):
        found = [
            inverse(ratio)
            for ratio in ratios
            if (ratio.of, ratio.over) == (peer, OURS_WEBSOCKET) and ratio.name.startswith("cpu ")
        ]
        lines.append(
            f"| 30 % lower per-token overhead | gateway CPU, against {peer} | {_reached(found, 30.0)} |"
        )
    return lines


def _reached(ratios: Sequence[Ratio], percent: float) -> str:
    if not ratios:
        return "not measured | -"
    changes = sorted(100 * (ratio.median - 1) for ratio in ratios)
    num = sum(change <= -percent for change in changes)
    return f"{_signed(changes[0])} to {_signed(changes[-1])} % | {num} of {len(changes)} conditions"


def overhead_lines(results: Results) -> list[str]:
    """Round-trip overhead over the network, every distance and size of history."""
    experiment = results.experiments.get("network")
    rows = [
        row
        for row in results.rows("network")
        if row.variant in (TIGHT, STREAMED) and "model" not in row.params
    ]
    if experiment is None or not rows:
        return [missing("network")]
    lines = [
        "| RTT | congestion control | history | new item | ours | "
        + " | ".join((*BASELINES, BOTH_TUNED))
        + " |",
        "|---" * 9 + "|",
    ]
    small: list[str] = []
    for row in rows:
        params = row.params
        if not params["rtt_ms"]:
            continue
        place = place_of(params)
        name = f"overhead {place}"
        ratios = [find(experiment, row.variant, over, name) for over in BASELINES]
        cells = [*map(reduction, ratios), "-"]
        if row.variant == TIGHT:
            ratios.append(find(experiment, TIGHT_TUNED, TUNED, name))
            cells[-1] = reduction(ratios[-1])
        small += [
            f"{place}: '{each.of}' against '{each.over}'"
            for each in ratios
            if each and is_small(each)
        ]
        tool = f", tool of {params['idle_s']:g} s" if params["idle_s"] != 0.6 else ""
        cap = f", {params['mbit_per_s']:g} Mbit/s" if "mbit_per_s" in params else ""
        lines.append(
            f"| {params['rtt_ms']:g} ms{cap} | {params['cc']} | {params['history']} |"
            f" {params['new_kB']} kB{tool} | {row.variant} | " + " | ".join(cells) + " |"
        )
    return [*lines, "", *small_words(small)]


def loopback_lines(results: Results) -> list[str]:
    """TTFT of our own server over loopback, asked in the classic ways and on a WebSocket.

    Its scripted engine takes no time, so that all of it is overhead.
    """
    experiment = results.experiments.get("round-trip")
    if experiment is None:
        return [missing("round-trip")]
    lines = ["| history | new connection | kept |", "|---|---|---|"]
    small: list[str] = []
    for size in dict.fromkeys(str(row.params["history"]) for row in results.rows("round-trip")):
        cells = []
        for api, baseline in (("responses new", NEW), ("responses", "kept")):
            found = find(experiment, f"tightloop scripted, {api}", OURS_SCRIPTED, f"ttft {size}")
            ours = inverse(found) if found else None
            cells.append(reduction(ours))
            if ours and is_small(ours):
                small.append(f"{size}: against '{baseline}'")
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    return [*lines, "", *small_words(small)]


def place_of(params: dict[str, str | int | float | bool]) -> str:
    """How the experiment's ratios name a condition."""
    cap = f" {params['mbit_per_s']:g} Mbit/s" if "mbit_per_s" in params else ""
    return (
        f"{params['rtt_ms']:g} ms {params['cc']}{cap} {params['history']}"
        f" +{params['new_kB']} kB idle {params['idle_s']:g} s"
    )


def is_small(ratio: Ratio) -> bool:
    """Whether the reduction is small, or its interval holds none at all."""
    return 100 * (1 - ratio.median) < SMALL_PERCENT or ratio.high >= 1


def small_words(places: Sequence[str]) -> list[str]:
    """Plainly, where little or nothing was gained."""
    if not places:
        return [f"No reduction here is below {SMALL_PERCENT:.0f} %, and no interval reaches zero."]
    head = f"Below {SMALL_PERCENT:.0f} %, dearer than the baseline, or with an interval that reaches zero:"
    return [head, "", *(f"- {place}" for place in places)]


def ttft_lines(results: Results) -> list[str]:
    """Time to first token with a real engine, over the network."""
    experiment = results.experiments.get("network")
    names = (
        list(dict.fromkeys(each.name for each in experiment.ratios if each.name.startswith("ttft")))
        if experiment
        else []
    )
    if experiment is None or not names:
        return [missing("network")]
    lines = ["| condition | ours | " + " | ".join(BASELINES) + " |", "|---|---|---|---|---|"]
    small: list[str] = []
    for name in names:
        for of in (TIGHT, STREAMED):
            ratios = [find(experiment, of, over, name) for over in BASELINES]
            small += [
                f"{name.removeprefix('ttft ')}: '{of}' against '{each.over}'"
                for each in ratios
                if each and is_small(each)
            ]
            cells = " | ".join(map(reduction, ratios))
            lines.append(f"| {name.removeprefix('ttft ')} | {of} | {cells} |")
    return [*lines, "", *small_words(small)]


def follow_up_lines(results: Results) -> list[str]:
    """Time to first token on real models over loopback: what streaming and continuing save."""
    experiment = results.experiments.get("follow-up-ttft")
    if experiment is None:
        return [missing("follow-up-ttft")]
    overs = (COLD, WARM, INCREMENTAL)
    lines = [
        "| model, tokens of history + output | ours | " + " | ".join(overs) + " |",
        "|---" * 5 + "|",
    ]
    for name in dict.fromkeys(each.name for each in experiment.ratios):
        for of in (INCREMENTAL, STREAMED_PREFILL):
            cells = [
                "-" if over == of else reduction(find(experiment, of, over, name)) for over in overs
            ]
            lines.append(f"| {name.removeprefix('ttft ')} | {of} | " + " | ".join(cells) + " |")
    return lines


def per_token_lines(results: Results) -> list[str]:
    """CPU per token of the gateway, our WebSocket over the same answer as server-sent events, and peers."""
    rows = [row for row in results.rows("per-token") if "cpu" in row.figures]
    rates = list(dict.fromkeys(str(row.params["rate"]) for row in rows))
    ours = {
        rate: results.figure("per-token", "tightloop", "cpu", api="websocket", rate=rate)
        for rate in rates
    }
    if not any(ours.values()):
        return [missing("per-token")]
    experiment = results.experiments["per-token"]
    others = list(
        dict.fromkeys(
            (row.variant, str(row.params["api"]))
            for row in rows
            if not row.variant.endswith(PINNED)
        )
    )
    lines = ["| baseline | " + " | ".join(rates) + " |", "|---" * (len(rates) + 1) + "|"]
    small: dict[str, list[str]] = {}
    for variant, api in others:
        found = {
            rate: inverse(ratio)
            for rate in rates
            if (ratio := find(experiment, f"{variant}, {api}", OURS_WEBSOCKET, f"cpu {rate}"))
        }
        if not found:
            continue
        cells = [reduction(found[rate]) if rate in found else "-" for rate in rates]
        lines.append(f"| {variant}, {api} | " + " | ".join(cells) + " |")
        for rate, ratio in found.items():
            if is_small(ratio):
                small.setdefault(rate, []).append(f"{variant} ({api})")
    places = [f"{rate}, against {', '.join(names)}" for rate, names in small.items()]
    return [*lines, "", *small_words(places)]


def inverse(ratio: Ratio) -> Ratio:
    """The same pairs the other way round."""
    return Ratio(
        ratio.name, ratio.over, ratio.of, 1 / ratio.median, 1 / ratio.high, 1 / ratio.low, ratio.num
    )
