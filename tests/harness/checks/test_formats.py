"""What programs print, as facts; and that no output breaks the reader."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.harness.checks.formats import MAX_FACTS, Fact, facts_in

RUFF = """\
F401 [*] `os` imported but unused
 --> m.py:1:8
  |
1 | import os
  |        ^^
  |
help: Remove unused import: `os`

Found 1 error.
[*] 1 fixable with the `--fix` option.
"""
MYPY = """\
/place/src/m.py:3: error: Incompatible return value type (got "str", expected "int")  [return-value]
src/m.py:4: note: See https://mypy.rtfd.io
src/n.py:7:12:7:20: error: Name "y" already defined on line 3  [no-redef]
Found 2 errors in 2 files (checked 5 source files)
"""
PYTEST = """\
=================================== FAILURES ===================================
tests/test_m.py:5: AssertionError
=========================== short test summary info ============================
FAILED tests/test_m.py::test_two[1-a] - assert 1 == 2
ERROR tests/test_n.py - ImportError: No module named 'x'
ERROR tests/test_o.py::test_db
!!!!!!!!!!!!!!!!!!!! Interrupted: 1 error during collection !!!!!!!!!!!!!!!!!!!!
=================== 1 failed, 2 errors in 0.03s ====================
"""
TSC = "src/app.ts(12,5): error TS2322: Type 'string' is not assignable to type 'number'.\n"
RUSTC = """\
error[E0308]: mismatched types
 --> src/main.rs:2:18
  |
note: something more
 --> src/main.rs:9:1
"""
UNITTEST = """\
======================================================================
FAIL: test_two (test_m.Case.test_two)
----------------------------------------------------------------------
"""


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (RUFF, ["m.py:1: F401 [*] `os` imported but unused"]),
        (
            "m.py:1:8: F401 [*] `os` imported but unused\n",
            ["m.py:1: F401 [*] `os` imported but unused"],
        ),
        (
            MYPY,
            [
                'src/m.py:3: Incompatible return value type (got "str", expected "int")'
                "  [return-value]",
                'src/n.py:7: Name "y" already defined on line 3  [no-redef]',
            ],
        ),
        (
            PYTEST,
            [
                "tests/test_m.py: test_two[1-a] failed: assert 1 == 2",
                "tests/test_n.py error: ImportError: No module named 'x'",
                "tests/test_o.py: test_db error",
            ],
        ),
        (TSC, ["src/app.ts:12: error TS2322: Type 'string' is not assignable to type 'number'."]),
        (RUSTC, ["src/main.rs:2: error[E0308]: mismatched types"]),
        (UNITTEST, ["FAIL: test_two (test_m.Case.test_two)"]),
        ("would reformat /place/a b.py\nOh no!\n", ["a b.py: is not formatted"]),
        ("\x1b[1mm.py\x1b[0m:2:1: \x1b[31mE1\x1b[0m bad\r\n", ["m.py:2: E1 bad"]),
        ("./a.c:3:1: warning: unused\n", ["a.c:3: warning: unused"]),
        ("working ...\nit broke\n\n", ["exit code 3: it broke"]),
        ("", ["exit code 3: no output"]),
    ],
)
def test_what_programs_print(output: str, shown: list[str]) -> None:
    assert shown == [str(fact) for fact in facts_in(output, 3, "/place")]
    assert facts_in(output, 0, "/place") == []


def test_the_same_finding_at_another_line_has_the_same_key() -> None:
    first = facts_in('m.py:3: error: "y" defined on line 1\n', 1, "/")[0]
    second = facts_in('m.py:9: error: "y" defined on line 7\n', 1, "/")[0]
    assert (first.key, first.line, second.line) == (second.key, 3, 9)
    assert first.key != facts_in('n.py:3: error: "y" defined on line 1\n', 1, "/")[0].key
    failed = facts_in(PYTEST, 1, "/")[0]
    assert failed.key == facts_in(PYTEST.replace("1 == 2", "3 == 4"), 1, "/")[0].key


def test_there_is_an_end_to_it() -> None:
    many = "".join(f"m.py:{number}: bad {'x' * 500}\n" for number in range(2 * MAX_FACTS))
    found = facts_in(many, 1, "/")
    assert len(found) == MAX_FACTS
    assert max(len(fact.text) for fact in found) == 200
    assert facts_in("m.py:1: bad\n" * 9, 1, "/") == [Fact("m.py", 1, "bad", "m.py bad")]


@given(
    lines=st.lists(
        st.one_of(
            st.text(),
            st.sampled_from([*RUFF.splitlines(), *MYPY.splitlines(), *PYTEST.splitlines()]),
        )
    ),
    exit_code=st.integers(1, 255),
)
def test_any_output_is_read(lines: list[str], exit_code: int) -> None:
    """A program that failed has said at least one thing, in one line."""
    found = facts_in("\n".join(lines), exit_code, "/place")
    assert found
    for fact in found:
        assert "\n" not in str(fact)
        assert fact.key
