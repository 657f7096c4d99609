from hypothesis import given
from hypothesis import strategies as st

from tightloop.agent.terminal.styled import Line, Role, Span, line, spans
from tightloop.agent.terminal.wrapping import beside, break_points, chop, cut, part, wrap


def plain(rows: list[Line]) -> list[str]:
    return [row.plain for row in rows]


def test_wrapping_at_spaces() -> None:
    """The spaces at a break are gone, a word wider than the row is cut, indentation hangs."""
    assert plain(wrap(line("the quick brown fox"), 10)) == ["the quick", "brown fox"]
    assert plain(wrap(line("- the quick brown fox"), 11, 2)) == ["- the quick", "  brown fox"]
    assert plain(wrap(line("a verylongword b"), 10)) == ["a", "verylongwo", "rd b"]
    assert plain(wrap(line("日本語日本語"), 10)) == ["日本語日本", "語"]
    assert plain(wrap(line("  indented text"), 10)) == ["  indented", "text"]


def test_roles_survive_wrapping() -> None:
    """Each row has the spans of its part."""
    rows = wrap(spans(("one two ", Role.ADDED), ("three", Role.DIM)), 9)
    assert [Line((Span("one two", Role.ADDED),)), Line((Span("three", Role.DIM),))] == rows


def test_cutting() -> None:
    """An ellipsis says that something is missing; wide characters are not cut in two."""
    assert cut(line("abc"), 3).plain == "abc"
    assert cut(line("abcd"), 3).plain == "ab\u2026"
    assert cut(line("日本語"), 4).plain == "日\u2026"
    assert cut(line("abcd"), 3, ellipsis=False).plain == "abc"
    assert cut(line("abcd"), 0).plain == ""


def test_chopping_drops_nothing() -> None:
    """Spaces included, as a terminal does it."""
    assert plain(chop(line("ab  cd"), 3)) == ["ab ", " cd"]
    assert [Line()] == chop(Line(), 3)


def test_beside() -> None:
    """The right part keeps its place, the left one gives way."""
    assert beside(line("left"), line("right"), 11).plain == "left  right"
    assert beside(line("left out"), line("right"), 10).plain == "lef\u2026 right"
    assert beside(line("left"), line("right"), 4).plain == "rig\u2026"


def test_a_part() -> None:
    """Characters, not columns, across spans."""
    whole = spans("abc", ("def", Role.DIM))
    assert spans("c", ("de", Role.DIM)) == part(whole, 2, 5)
    assert Line() == part(whole, 3, 3)


WORDS = st.lists(
    st.sampled_from(["a", "bb", "日本", "e\u0301", " ", "   ", "longword"]), max_size=20
)


@given(words=WORDS, width=st.integers(2, 20), indent=st.integers(0, 4))
def test_no_row_is_too_wide_and_no_character_is_lost(
    words: list[str], width: int, indent: int
) -> None:
    """Apart from spaces, the rows are the text."""
    text = "".join(words)
    rows = wrap(line(text), width, indent)
    assert all(row.cells <= width for row in rows)
    assert text.replace(" ", "") == "".join(plain(rows)).replace(" ", "")
    chopped = chop(line(text), width)
    assert all(row.cells <= width for row in chopped)
    assert text == "".join(plain(chopped))


@given(words=WORDS, more=WORDS, width=st.integers(2, 20))
def test_a_row_with_a_successor_never_changes(
    words: list[str], more: list[str], width: int
) -> None:
    """That is why rows of a text that still grows can be given to the scrollback."""
    before = break_points("".join(words), width)
    after = break_points("".join(words + more), width)
    assert before[:-1] == after[: len(before) - 1]
