from hypothesis import given
from hypothesis import strategies as st

from tightloop.agent.terminal.styled import EMPTY, Line, Role, Span, joined, line, lines_of, spans
from tightloop.agent.terminal.width import cells


def test_a_span_cleans_its_text() -> None:
    """No view has to think of it: sequences go, tabs and breaks become spaces."""
    assert Span("\x1b[31mred\x1b[0m text").text == "red text"
    assert Span("a\tb\nc").text == "a       b c"
    assert Span("\u202eevil").text == "\ufffdevil"
    assert Span("\x1b]0;owned\x07title").text == "title"


def test_characters_that_terminals_disagree_about() -> None:
    """Joiners and selectors are left out, so that every terminal counts the same columns."""
    assert Span("👩\u200d👧").text == "👩👧"
    assert Span("❤\ufe0f").text == "❤"
    assert Span("a\U000e0041b").text == "a\ufffdb"


@given(st.text())
def test_no_control_character_gets_through(text: str) -> None:
    """Whatever a command prints: nothing that a terminal would obey is left."""
    for char in Span(text).text:
        assert ord(char) >= 32
        assert not 0x7F <= ord(char) < 0xA0
        assert not 0x202A <= ord(char) <= 0x202E
        assert not 0x2066 <= ord(char) <= 0x2069


def test_lines() -> None:
    """Rows are made of pieces, empty pieces are left out."""
    row = spans(("A ", Role.ACCENT), "path", ("", Role.DIM))
    assert Line((Span("A ", Role.ACCENT), Span("path"))) == row
    assert row.plain == "A path"
    assert row.cells == 6
    assert line("") == EMPTY
    assert [line("a", Role.DIM), EMPTY, line("b", Role.DIM)] == lines_of("a\n\nb\n", Role.DIM)
    assert lines_of("") == []
    assert joined([line("a"), EMPTY, line("b")], Span(" | ")).plain == "a | b"
    assert cells(line("日本").plain) == 4
