"""Injected bugs are declared, valid Python, and on different lines."""

import random

from tightloop.engine.patchling.edits import parse_function
from training.mutate import inject

SOURCE = """\
def pick(items, size=3):
    found = []
    for item in items[:size]:
        if item is None:
            continue
        found.append(item + 1)
    return found
"""


def test_bugs_lie_on_different_lines_and_the_rest_is_unchanged() -> None:
    for seed in range(40):
        injected = inject(SOURCE, random.Random(seed), 3)
        assert injected is not None
        buggy, edits = injected
        parse_function(buggy)
        changed = {
            n for n, pair in enumerate(zip(SOURCE.split("\n"), buggy.split("\n"), strict=True))
            if pair[0] != pair[1]
        }  # fmt: skip
        assert changed == {edit.line for edit in edits}
        assert 1 <= len(edits) <= 3


def test_the_same_seed_gives_the_same_bugs() -> None:
    assert inject(SOURCE, random.Random(5), 2) == inject(SOURCE, random.Random(5), 2)


def test_text_without_bugs_to_offer_is_refused() -> None:
    assert inject("def f(:\n", random.Random(1), 1) is None
    assert inject("pass\n", random.Random(1), 1) is None
