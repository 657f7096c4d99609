"""What the model sees of a function leads back to the same bytes."""

from hypothesis import given
from hypothesis import strategies as st

from tightloop.engine.patchling import layout
from tightloop.engine.patchling.report import FailingCase, TestReport

SOURCE = '''\
@cached
def area(width, height=2):  # two by default
    """Docstring.

    More of it."""

    # a comment
    if width < 0:
        raise ValueError(
            f"negative # {width}"  # shown
        )
    return width * height
'''


def test_comments_docstrings_and_blank_lines_are_hidden() -> None:
    view = layout.view_function(SOURCE)
    assert [line.text for line in view.lines] == [
        "@cached",
        "def area(width, height=2):",
        " if width < 0:",
        "  raise ValueError(",
        '   f"negative # {width}"',
        "  )",
        " return width * height",
    ]


def test_restoring_a_line_keeps_indentation_and_comment() -> None:
    view = layout.view_function(SOURCE)
    assert view.restore(1, "def area(w):") == "def area(w):  # two by default"
    tabs = layout.view_function("def f(x):\r\n\treturn x   \t# why\r\n")
    assert tabs.restore(1, " return 1") == "\treturn 1   \t# why\r"


@given(st.text(alphabet=st.sampled_from("ab#'\"\\ \t\n():=é\r\f"), max_size=80))
def test_restoring_what_is_shown_gives_back_the_line(source: str) -> None:
    view = layout.view_function(source)
    for index, line in enumerate(view.lines):
        assert view.restore(index, line.text) == view.original[line.line]


def test_a_prompt_holds_report_function_and_traceback_lines() -> None:
    report = TestReport((FailingCase("area(1)", error="NameError: x"),), frozenset({7}))
    view = layout.view_function("def f():\n    return x\n")
    tokens = layout.prompt_tokens(
        report, [[500], [501]], layout.hit_lines(view, report), lambda text: [len(text)]
    )
    mark = layout.MARKER_TOKENS
    assert tokens == [
        mark["<test>"], 7, mark["<exc>"], 12, mark["<fn>"], layout.line_token(0), 500,
        layout.line_token(1), 501, mark["<fix>"],
    ]  # fmt: skip
    hit = TestReport((), frozenset({1}))
    assert frozenset({1}) == layout.hit_lines(view, hit)
    assert mark["<hit>"] in layout.prompt_tokens(hit, [[500], [501]], frozenset({1}), lambda _: [])


def test_long_values_are_clipped_in_the_middle() -> None:
    assert layout.clip("abcdefghij", 7) == "ab...ij"
    assert layout.clip("abc", 7) == "abc"
