import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.agent.terminal.inline_markdown import inline
from tightloop.agent.terminal.styled import Role, Span

P, S, E, C, D = Role.PLAIN, Role.STRONG, Role.EMPHASIS, Role.CODE, Role.DIM
LINES = {
    "plain text": [("plain text", P)],
    "a **bold** word": [("a ", P), ("bold", S), (" word", P)],
    "an *emphasised* word": [("an ", P), ("emphasised", E), (" word", P)],
    "***both***": [("both", S)],
    "`code` and ``a ` b``": [("code", C), (" and ", P), ("a ` b", C)],
    "**bold `code` bold**": [("bold ", S), ("code", C), (" bold", S)],
    "[text](http://x.org/a_(b)) end": [("text", P), (" (http://x.org/a_(b))", D), (" end", P)],
    "[http://x.org](http://x.org)": [("http://x.org", P)],
    "a[0] and [x]": [("a[0] and [x]", P)],
    r"\*no\* \_x\_": [("*no* _x_", P)],
    "2 * 3 * 4 and a**b**c": [("2 * 3 * 4 and a**b**c", P)],
    "src/*.py tests/*.py **/*.md": [("src/*.py tests/*.py **/*.md", P)],
    "def f(*args, **kwargs): pass": [("def f(*args, **kwargs): pass", P)],
    "snake_case _private_ __init__": [("snake_case _private_ __init__", P)],
    "an open ` and ** and * stay": [("an open ` and ** and * stay", P)],
    "**open": [("**open", P)],
}


def merged(spans: list[Span]) -> list[tuple[str, Role]]:
    found: list[tuple[str, Role]] = []
    for span in spans:
        if found and found[-1][1] is span.role:
            found[-1] = (found[-1][0] + span.text, span.role)
        else:
            found.append((span.text, span.role))
    return found


@pytest.mark.parametrize(("text", "expected"), LINES.items())
def test_whole_lines(text: str, expected: list[tuple[str, Role]]) -> None:
    """Marks that are none stay text: globs, powers, names."""
    found = inline(text, is_final=True)
    assert expected == [piece for piece in merged(found.spans) if piece[0]]
    assert sum(len(span.text) for span in found.spans) == found.num_stable


def test_an_open_mark_is_shown_as_if_it_were_closed() -> None:
    """But nothing from it on is stable; as long as nothing is open, everything is."""
    found = inline("some **bold a", is_final=False)
    assert merged(found.spans) == [("some ", P), ("bold a", S)]
    assert found.num_stable == 5
    assert inline("some text", is_final=False).num_stable == 9
    assert inline("a `code", is_final=False).num_stable == 2
    assert inline("a [link](http", is_final=False).num_stable == 2


def test_a_mark_can_be_given_up() -> None:
    """Before ``literal_before`` a mark without its counterpart is text, even if that comes later."""
    found = inline("a **b c** d", is_final=False, literal_before=6)
    assert merged(found.spans) == [("a **b c** d", P)]


def test_many_marks_take_no_more_than_linear_time_in_depth() -> None:
    """A line made of marks neither exhausts the stack nor takes for ever."""
    for text in ("*a " * 1300, "**a *" * 800, "[" * 4000, "`a``b" * 800):
        assert inline(text, is_final=False).spans
        assert inline(text, is_final=True).spans


PIECES = st.lists(
    st.sampled_from(["*", "**", "`", "``", "a", "b c", " ", "[", "](", ")", "\\", "_", "."]),
    max_size=16,
)


@settings(max_examples=150, deadline=None)
@given(pieces=PIECES, more=PIECES)
def test_what_is_stable_stays(pieces: list[str], more: list[str]) -> None:
    """The stable beginning is the same in every continuation of the line, apart from its last character."""
    text = "".join(pieces)
    found = inline(text, is_final=False)
    later = inline(text + "".join(more), is_final=True)
    num_stable = max(0, found.num_stable - 2)
    assert characters(found.spans)[:num_stable] == characters(later.spans)[:num_stable]


def characters(spans: list[Span]) -> list[tuple[str, Role]]:
    return [(char, span.role) for span in spans for char in span.text]
