"""Proposals hold the original line of every kind that does not need outside knowledge."""

import pytest

from tightloop.engine.patchling.inverse import proposals


@pytest.mark.parametrize(
    ("fixed", "buggy"),
    [
        ("    return a <= b", "    return a < b"),
        ("    return a * b", "    return a + b"),
        ("    a += b", "    a = b"),
        ("    return -a", "    return a"),
        ("    return a - 1", "    return a"),
        ("    return a[1:]", "    return a[:]"),
        ("    return a[:b]", "    return a[:]"),
        ("    return a", "    a"),
        ("    return a", "    return None"),
        ("    return len(a) + b", "    return lne(a) + b"),
        ("    return a.b + self.b", "    return a.b + b"),
        ("    if not a: return b", "    if a: return b"),
        ("    return f(a, b)", "    return f(b, a)"),
        ("    yield a", "    return a"),
    ],
)
def test_the_fixed_line_is_among_the_proposals(fixed: str, buggy: str) -> None:
    source = f"def f(self, a, b):\n{buggy}\n"
    assert fixed in {edit.apply(buggy) for edit in proposals(source) if edit.line == 1}


def test_no_proposal_leaves_the_text_unchanged_and_none_comes_twice() -> None:
    source = "def f(a, b):\n    return a.lower()[1:] if a and not b else None\n"
    lines = source.split("\n")
    made = [(edit.line, edit.apply(lines[edit.line])) for edit in proposals(source)]
    assert len(made) == len(set(made))
    assert all(new != lines[line] for line, new in made)


def test_text_that_is_not_python_has_no_proposals() -> None:
    assert proposals("def f(:\n") == []
