"""Declared edits change one line, keep the others, and can be recognised backwards."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.engine.patchling.edits import KINDS, apply_edit, mutations, undoes_declared

SOURCE = '''\
def pick(self, items, size=3, *, strict=True):
    """Docstring stays."""
    found = []
    for item in items[1:size]:
        if item is None or item in found:
            continue
        elif not strict and size - 1 > len(items):
            break
        found.append(min(item, size))
        size += 1
    yield -size
    return self.join(found, ",") if found else None
'''


def test_every_kind_is_declared_and_offered() -> None:
    assert set(KINDS) >= {edit.kind for edit in mutations(SOURCE)}
    assert set(KINDS) - {edit.kind for edit in mutations(SOURCE)} <= {"attribute", "return_value"}


@pytest.mark.parametrize(
    ("fixed", "buggy", "kind"),
    [
        ("    return a < b", "    return a <= b", "comparison"),
        ("    return a is None", "    return a is not None", "identity"),
        ("    return a not in b", "    return a in b", "membership"),
        ("    return a and b", "    return a or b", "boolean"),
        ("    return 1 if not a else b", "    return 1 if a else b", "negation"),
        ("    return 1 if a else b", "    return 1 if not a else b", "negation"),
        ("    return a // b", "    return a / b", "arithmetic"),
        ("    return -a", "    return a", "sign"),
        ("    return len(a) - 1", "    return len(a)", "off_by_one"),
        ("    return a[:b]", "    return a[:b + 1]", "off_by_one"),
        ("    return a.split(',')", "    return a.split('-')", "constant"),
        ("    return f(a, b)", "    return f(b, a)", "swapped_arguments"),
        ("    return a", "    a", "missing_return"),
        ("    return a", "    return None", "return_value"),
        ("    return a", "    return b", "wrong_name"),
        ("    return sorted(a)", "    return sroted(a)", "misspelt_name"),
        ("    return a.lower()", "    return a.upper()", "api_swap"),
        ("    yield a", "    return a", "yield_return"),
        ("    return a[1:]", "    return a[:]", "slice_bound"),
    ],
)
def test_a_kind_turns_the_fixed_line_into_the_buggy_one(fixed: str, buggy: str, kind: str) -> None:
    source = f"def f(a, b):\n{fixed}\n"
    kinds = {edit.kind for edit in mutations(source) if edit.apply(fixed) == buggy}
    assert kind in kinds
    assert undoes_declared(source, 1, buggy)
    assert not undoes_declared(source, 1, "    return 'something else'")


def test_edits_touch_one_line_only() -> None:
    lines = SOURCE.splitlines()
    for edit in mutations(SOURCE):
        changed = apply_edit(lines, edit)
        assert [edit.line] == [n for n, line in enumerate(lines) if changed[n] != line]


def test_a_method_may_be_indented() -> None:
    indented = textwrap.indent(SOURCE, "    ")
    assert len(mutations(SOURCE)) == len(mutations(indented))


def test_one_line_can_be_asked_for() -> None:
    for line in range(SOURCE.count("\n")):
        assert [edit for edit in mutations(SOURCE) if edit.line == line] == mutations(SOURCE, line)


@given(st.text(max_size=60))
def test_any_text_gives_edits_or_a_syntax_error(text: str) -> None:
    assert undoes_declared(text, 0, text) in (True, False)
