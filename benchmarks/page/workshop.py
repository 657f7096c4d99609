"""The tool side: what was measured of it, and how many times ours goes into everybody else's."""

from collections.abc import Sequence

from benchmarks.lab.record import Experiment, Ratio, times
from benchmarks.page.results import Results, missing
from benchmarks.page.tables import circumstances, listing

SECTIONS = (
    ("workshop-commands", "A command"),
    ("workshop-workspaces", "A fresh copy of the repository"),
    ("workshop-tests", "Tests after an edit"),
    ("warm-tests", "Tests of real projects after an edit"),
    ("workshop-patches", "A patch"),
    ("tool-calls", "Tool calls of whole agents"),
    ("rounds", "Edit-test rounds of whole agents"),
    ("time-to-green", "Time to green: single, retry, race"),
)
INTRODUCTION = """\
## The tool side

What an agent's tools cost beside plain child processes, bubblewrap entered for each command, git, `cp -a`, cold
pytest and Codex CLI. Ratios say how many times ours goes into the other's, round by round; below 1 the other is
quicker."""


def workshop_lines(results: Results) -> list[str]:
    """A section for each experiment; of one without results, what measures it."""
    lines = [INTRODUCTION, ""]
    for name, title in SECTIONS:
        lines += [f"### {title}", ""]
        experiment = results.experiments.get(name)
        if experiment is None:
            lines += [f"{missing(name).capitalize()}.", ""]
            continue
        lines += [
            *listing(results.rows(name)),
            *ratio_table(experiment),
            *circumstances(experiment),
        ]
    return lines


def ratio_table(experiment: Experiment) -> list[str]:
    """A line for each other way and condition, a column for each of ours."""
    ours = list(dict.fromkeys(each.over for each in experiment.ratios))
    found = {(each.of, each.name, each.over): each for each in experiment.ratios}
    places = list(dict.fromkeys((each.of, each.name) for each in experiment.ratios))
    if not places:
        return []
    lines = [f"| over | | {' | '.join(ours)} |", "|---" * (2 + len(ours)) + "|"]
    for of, name in places:
        cells = _cells([found.get((of, name, each)) for each in ours])
        lines.append(f"| {of} | {name} | {cells} |")
    return [*lines, ""]


def _cells(ratios: Sequence[Ratio | None]) -> str:
    return " | ".join("-" if each is None else times(each) for each in ratios)
