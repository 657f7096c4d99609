"""Reports from recorded pytest output; `tests/training` compares with live runs."""

from tightloop.engine.patchling.report import (
    FailingCase,
    TestReport,
    canonical_case,
    report_from_pytest,
)

AUTO = """\
FFF                                                                      [100%]
=================================== FAILURES ===================================
__________________________________ test_fn_0 ___________________________________

    def test_fn_0():
>       assert fn(0) == 1
               ^^^^^

test_target.py:5:\x20
_ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _\x20

x = 0

    def fn(x):
>       return reslt
               ^^^^^
E       NameError: name 'reslt' is not defined. Did you mean: 'result'?

target.py:5: NameError
__________________________________ test_fn_2 ___________________________________

    def test_fn_2():
>       assert fn(2) == [1, 2, 3]
E       assert [0, 1, 2, 3, 4, 5, ...] == [1, 2, 3]
E\x20
E         At index 0 diff: 0 != 1

test_target.py:13: AssertionError
__________________________________ test_fn_6 ___________________________________

    def test_fn_6():
>       assert fn(6) == 'abc'
E       AssertionError: assert <generator ob...x7fd6e1b04520> == 'abc'
E\x20
E         Use -v to get more diff

test_target.py:29: AssertionError
=========================== short test summary info ============================
FAILED test_target.py::test_fn_0 - NameError: name 'reslt' is not defined
3 failed in 0.09s
"""
SHORT = """\
=================================== FAILURES ===================================
__________________________________ test_fn_0 ___________________________________
tests/test_target.py:5: in test_fn_0
    assert fn(0)
           ^^^^^
src/target.py:11: in fn
    return helper(x)
           ^^^^^^^^^
src/other.py:12: in helper
    return x.foo
           ^^^^^
E   AttributeError: 'int' object has no attribute 'foo'
=========================== short test summary info ============================
"""


def test_cases_and_lines_of_the_long_style() -> None:
    assert report_from_pytest(AUTO, path="target.py", first_line=4, num_lines=3) == TestReport(
        (
            FailingCase("fn(0)", error="NameError: name 'reslt' is not defined"),
            FailingCase("fn(2)", "[1, 2, 3]", "[0, 1, 2, 3, 4, 5, ...]"),
            FailingCase("fn(6)", "'abc'", "<generator ob...>"),
        ),
        frozenset({1}),
    )


def test_cases_and_lines_of_the_short_style() -> None:
    report = report_from_pytest(SHORT, path="target.py", first_line=10, num_lines=5)
    assert report.cases == (
        FailingCase("fn(0)", error="AttributeError: 'int' object has no attribute 'foo'"),
    )
    assert report.lines == frozenset({1})
    assert (
        report_from_pytest(SHORT, path="src/target.py", first_line=12, num_lines=5).lines
        == frozenset()
    )


def test_a_passing_run_gives_an_empty_report() -> None:
    assert report_from_pytest(
        "3 passed in 0.1s\n", path="a.py", first_line=1, num_lines=9
    ) == TestReport(())


def test_a_very_long_error_is_read_in_part() -> None:
    """Every session waits meanwhile: all of these digits took half a minute."""
    case = canonical_case("assert f(1) == 2", ["ValueError: " + "ab" * 100_000])
    assert case is not None
    assert case.error.startswith("ValueError: abab")
    assert len(case.error) == 2000
