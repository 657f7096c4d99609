"""Everything that was measured, as one table of ratios: ``python -m benchmarks.lab.report``."""

import argparse
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from benchmarks.lab.columns import WIDTH
from benchmarks.lab.record import RESULTS, Experiment, ratio_lines, read


def experiments(directory: Path) -> list[Experiment]:
    """All results in the folder, by name; files of another form are passed over."""
    found = []
    for path in sorted(directory.glob("*.json")):
        try:
            found.append(read(path))
        except msgspec.DecodeError as error:
            print(f"{path.name} is no result: {error}", file=sys.stderr)
    return found


def report(found: Sequence[Experiment]) -> str:
    """Machines, versions, every ratio, and what was not measured; at most 100 columns."""
    if not found:
        return "no results; make bench makes them\n"
    facts = [*_machines(found), *_versions(found)]
    lines = ["Ratios of all experiments: how many times `over` goes into `ratio of`.", ""]
    lines += [
        line for fact in facts for line in textwrap.wrap(fact, WIDTH, break_on_hyphens=False)
    ] + _ratios(found)
    missing = dict.fromkeys(
        f"{row.variant}: not measured: {row.missing}"
        for experiment in found
        for row in experiment.rows
        if row.missing
    )
    return "\n".join([*lines, *([""] if missing else []), *missing]) + "\n"


def _machines(found: Iterable[Experiment]) -> list[str]:
    said: dict[str, list[str]] = {}
    for each in found:
        machine = each.machine
        text = (
            f"{machine.num_cores} cores, {machine.cpu}, {machine.kernel}, Python {machine.python}"
            + (f", {machine.llama}" if machine.llama else "")
        )
        said.setdefault(f"{text}, {each.made}", []).append(f"{each.name} {machine.load_1min}")
    return [f"{text}; load at start: {', '.join(loads)}" for text, loads in said.items()]


def _versions(found: Iterable[Experiment]) -> list[str]:
    known = dict.fromkeys(
        f"{name} {version}" for each in found for name, version in each.versions.items()
    )
    return [f"versions: {', '.join(known)}"] if known else []


def _ratios(found: Iterable[Experiment]) -> list[str]:
    lines = []
    for each in found:
        if each.ratios:
            lines += ["", f"== {each.name}: {each.title}", *ratio_lines(each.ratios)]
    return lines or ["no ratios"]


def main() -> None:
    """Print the report of a folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lab.report", description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS)
    print(report(experiments(parser.parse_args().results)), end="")


if __name__ == "__main__":
    main()
