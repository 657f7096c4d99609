"""Do a warm and a cold run say the same? One edit's answer, and the shares of many."""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from benchmarks.lab.columns import Column, layout
from benchmarks.warm.runs import Ran
from tightloop.sandbox.verdicts import Verdict, differences

LEVELS = ("swap-l2", "l2", "swap", "l1", "l0", "cold")
_MAX_LINES = 40


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of one edit. ``differences`` are those of verdicts; ``text`` shows others.

    ``flaky`` has what two cold runs of the same tree already tell differently.
    """

    project: str
    seed: int
    index: int
    kind: str
    about: str
    level: str
    warm_ms: float
    cold_ms: float
    exit_code: int
    num_tests: int
    num_not_passed: int
    differences: list[str] = []
    flaky: list[str] = []
    text: str = ""

    @property
    def line(self) -> str:
        """One line for a person, with what reproduces it."""
        said = "; ".join(self.differences[:4]) or "the text differs"
        return (
            f"{self.project} edit {self.index} ({self.kind}: {self.about}) at {self.level}: {said}\n"
            f"    again: python -m benchmarks.warm.equality --seed {self.seed} "
            f"--projects {self.project} --only {self.index}"
        )


def different(warm: Ran, cold: Ran) -> list[str]:
    """What the two verdicts tell differently, the exit code first.

    Two runs that were both ended by the time limit say the same: that there is no end.
    """
    if warm.timed_out and cold.timed_out:
        return []
    one, other = Verdict(warm.exit_code, warm.tests), Verdict(cold.exit_code, cold.tests)
    return [str(each) for each in differences(one, other)]


def unlike(warm: Ran, cold: Ran) -> str:
    """The first lines in which the texts differ; empty when they are equal."""
    if warm.text == cold.text or (warm.timed_out and cold.timed_out):
        return ""
    lines = difflib.unified_diff(
        cold.text.splitlines(), warm.text.splitlines(), "cold", "warm", lineterm="", n=0
    )
    return "\n".join(list(lines)[:_MAX_LINES])


def shares(answers: Sequence[Answer]) -> list[str]:
    """A table: edits per project and level, and what was found."""
    names = list(dict.fromkeys(answer.project for answer in answers))
    groups = [[each for each in answers if each.project == name] for name in names]
    if len(groups) > 1:
        names, groups = [*names, "all"], [*groups, list(answers)]
    columns = [Column("edits", [str(len(group)) for group in groups], is_number=True)]
    for level in _levels(answers):
        cells = [_share(each.level == level for each in group) for group in groups]
        columns.append(Column(level, cells, is_number=True))
    columns += [
        Column("a test fails", [_share(each.exit_code != 0 for each in g) for g in groups], True),
        Column(
            "verdict differs", [str(_num(each.differences for each in g)) for g in groups], True
        ),
        Column("text differs", [str(_num(each.text for each in g)) for g in groups], True),
        Column("unstable", [str(_num(each.flaky for each in g)) for g in groups], True),
    ]
    return layout([Column("project", names)], columns)


def by_kind(answers: Sequence[Answer]) -> list[str]:
    """A table: how often each kind of edit took each level."""
    kinds = sorted({answer.kind for answer in answers})
    counts = Counter((answer.kind, answer.level) for answer in answers)
    columns = [
        Column(level, [str(counts[kind, level] or "") for kind in kinds], is_number=True)
        for level in _levels(answers)
    ]
    return layout([Column("kind of edit", kinds)], columns)


def _levels(answers: Iterable[Answer]) -> list[str]:
    seen = {answer.level for answer in answers}
    return [*(level for level in LEVELS if level in seen), *sorted(seen - set(LEVELS))]


def _num(found: Iterable[object]) -> int:
    return sum(map(bool, found))


def _share(found: Iterable[bool]) -> str:
    values = list(found)
    return f"{100 * sum(values) / len(values):.0f} %"
