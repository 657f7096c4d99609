"""Ours against every peer: tables of reductions, in bold where a peer is about as good or better."""

from collections.abc import Iterable, Sequence

from benchmarks.lab.record import Experiment, Ratio
from benchmarks.page.headlines import inverse, is_small, reduction
from benchmarks.page.results import Results, missing

EXPERIMENTS = {
    "round-trip": "tightloop, websocket",
    "engine-round-trip": "tightloop embedded, websocket",
    "per-token": "tightloop, websocket",
    "concurrency": "tightloop, websocket",
}
"""Each experiment with peers, and our way that its tables show against them."""

FIGURES = ("ttft", "added", "cpu", "transit", "late p99")
NO_PEERS = ("direct", "tightloop")
"""What the names of no peer begin with: the way without a gateway, and ours."""


def peer_lines(results: Results) -> list[str]:
    """Every experiment with peers: a table for each figure, of our tight path and asked alike."""
    lines: list[str] = []
    for name, ours in EXPERIMENTS.items():
        experiment = results.experiments.get(name)
        if experiment is None:
            lines += [f"**{name}**: {missing(name)}.", ""]
            continue
        gateway = ours.rpartition(", ")[0]
        lines += [f"**{experiment.title}**", ""]
        for figure in FIGURES:
            ratios = of_figure(experiment, figure)
            tight = [each for each in ratios if each.over == ours]
            lines += _table(f"{figure} of `{ours}` against", figure, tight)
            alike = [each for each in ratios if is_alike(each, gateway)]
            lines += _table(f"{figure} of `{gateway}`, asked alike, against", figure, alike)
    return lines


def of_figure(experiment: Experiment, figure: str) -> list[Ratio]:
    """The figure's ratios of a peer over ours."""
    return [
        each
        for each in experiment.ratios
        if each.name.startswith(f"{figure} ") and not each.of.startswith(NO_PEERS)
    ]


def is_alike(ratio: Ratio, gateway: str) -> bool:
    """Whether ``gateway`` was asked over the peer's own API, and that is not the tight path."""
    api = ratio.of.rpartition(", ")[2]
    return api != "websocket" and ratio.over == f"{gateway}, {api}"


def _table(title: str, figure: str, ratios: Sequence[Ratio]) -> list[str]:
    """A line for each peer and API, a column for each condition."""
    found = {(each.of, each.name.removeprefix(f"{figure} ")): each for each in ratios}
    if not found:
        return []
    peers, places = _distinct(peer for peer, _ in found), _distinct(place for _, place in found)
    lines = [f"| {title} | " + " | ".join(places) + " |", "|---" * (len(places) + 1) + "|"]
    for peer in peers:
        cells = [_cell(found.get((peer, place))) for place in places]
        lines.append(f"| {peer} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _cell(ratio: Ratio | None) -> str:
    """In bold where the reduction is small or none."""
    if ratio is None:
        return "-"
    ours = inverse(ratio)
    return f"**{reduction(ours)}**" if is_small(ours) else reduction(ours)


def _distinct(names: Iterable[str]) -> Sequence[str]:
    return list(dict.fromkeys(names))
