import pytest

from tightloop.agent.terminal.blocks import expanded, laid_line
from tightloop.agent.terminal.styled import Role

LINES = {
    "# Title": ["Title"],
    "a long paragraph of text": ["a long", "paragraph", "of text"],
    "- an item of a list": ["- an item", "  of a", "  list"],
    "  * nested item here": ["  - nested", "    item", "    here"],
    "12. numbered item": ["12. number", "    ed", "    item"],
    "- [x] done": ["- [x] done"],
    "> a quotation of text": ["> a", "> quotatio", "> n of", "> text"],
    "  indented text": ["  indented", "  text"],
    "- - -": ["\u2500" * 10, "\u2500" * 10, "\u2500" * 4],
}


@pytest.mark.parametrize(("text", "rows"), LINES.items())
def test_rows_of_a_line(text: str, rows: list[str]) -> None:
    """Rows after the first are indented so that marks stand alone."""
    laid = laid_line(text, is_final=True)
    assert rows == [row.line.plain for row in laid.rows(10, 0)]


def test_rows_go_on_behind_what_was_shown() -> None:
    """In another width, too: what is left is laid out anew."""
    laid = laid_line("- one two three four", is_final=False)
    first = laid.rows(11, 0)[0]
    assert first.line.plain == "- one two"
    assert [row.line.plain for row in laid.rows(40, first.end)] == ["  three four"]
    assert laid.rows(40, len(laid.text.plain)) == []


def test_a_heading_is_one_whatever_its_level() -> None:
    """It is text of its own weight, without its marks."""
    (span,) = laid_line("### Why *this*", is_final=True).text.spans[:1]
    assert (span.text, span.role) == ("Why ", Role.HEADING)


def test_text_that_grows_keeps_its_beginning() -> None:
    """Sequences and tabs are gone before columns are counted; half a sequence is not shown."""
    assert expanded("a\tb  ", is_final=True) == "a   b"
    assert expanded("\x1b[31mred", is_final=False) == "red"
    assert expanded("red\x1b[3", is_final=False) == "red"
    assert expanded("red\x1b", is_final=False) == "red"
