"""The generator's reports must be what the run time reads from a real pytest run."""

import random
from typing import Any

import pytest

from tightloop.engine.patchling.report import report_from_pytest
from training.bank import make_tests, run_pytest
from training.execute import Slice, in_child, mutants_of, subject_of

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

MODULE = '''
import re

LIMIT = 3


def clip(values, size=LIMIT):
    """The first values,

    and no more."""
    taken = []
    for value in values:
        if len(taken) >= size:  # enough
            break
        taken.append(value)
    return taken


def words(text):
    found = re.findall("[a-z]+", text.lower())
    return {word: found.count(word) for word in found}


def chunks(items, size):
    if size <= 0:
        raise ValueError("size must be positive")
    for start in range(0, len(items), size):
        yield items[start:start + size]


def label(name, count=0):
    prefix = "-" * 3
    if count > 1:
        return prefix + name + " x " + str(count) + " and a long tail of text to be cut"
    return name or None
'''


def _mutants(name: str) -> list[list[Any]]:
    slices = Slice(MODULE)

    def work() -> list[list[Any]]:
        subject = subject_of(slices, name, random.Random(3), 40)
        assert subject is not None
        found = mutants_of(subject, random.Random(4), [1, 1, 1, 1, 2])
        return [[subject.module, subject.source, subject.first_line, subject.cases,
                 m.buggy, [[c.call, c.expected, c.actual, c.error] for c in m.report.cases],
                 sorted(m.report.lines)] for m in found]  # fmt: skip

    found: list[list[Any]] = in_child(work) or []
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "style"),
    [("clip", "auto"), ("words", "short"), ("chunks", "auto"), ("label", "short")],
)
def test_generated_reports_equal_those_of_real_pytest(name: str, style: str) -> None:
    rows = _mutants(name)
    assert rows
    for module, source, first, cases, buggy, expected, lines in rows[:1]:
        text = module.replace(source, buggy, 1)
        status, output = run_pytest(text, make_tests(name, cases), f"--tb={style}")
        report = report_from_pytest(
            output, path="target.py", first_line=first, num_lines=buggy.count("\n") + 1
        )
        assert status == 1
        got = [[c.call, c.expected, c.actual, c.error] for c in report.cases]
        assert expected == got
        assert lines == sorted(report.lines)
