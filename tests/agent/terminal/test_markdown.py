from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.agent.terminal.markdown import MAX_HELD_ROWS, MAX_LINE_CHARS, MarkdownView
from tightloop.agent.terminal.styled import Line, Role

MESSAGE = """\
# The plan

I'll look at **the test** first, then fix `total` in `calc.py`.


- the slice `items[1:]` drops the first item
  - and nothing else

```python
def total(items):
\treturn sum(items)

# end
```
| a | b |
|---|---|
| 1 | 22 |
Done.

"""
ROWS = """\
The plan

I'll look at the test first, then fix
total in calc.py.

- the slice items[1:] drops the first
  item
  - and nothing else

  def total(items):
      return sum(items)

  # end

a   b
──────
1   22
Done.
"""


def whole(text: str, width: int) -> list[Line]:
    view = MarkdownView()
    view.feed(text)
    view.finish()
    return view.take(width)


def plain(rows: list[Line]) -> list[str]:
    return [row.plain.rstrip() for row in rows]


def test_a_message() -> None:
    """Headings, items, code and tables; one blank row between blocks, none at either end."""
    assert ROWS.splitlines() == plain(whole(MESSAGE, 40))


def test_rows_are_given_as_soon_as_they_are_complete() -> None:
    """The row that is being written is live, those before it are not held back."""
    view = MarkdownView()
    view.feed("one two three four five six")
    assert plain(view.take(9))[:1] == ["one two"]
    assert plain(view.live(9)) == ["six"]
    view.feed(" seven\neight")
    assert plain(view.take(9)) == ["six seven"]
    assert plain(view.live(9)) == ["eight"]
    view.finish()
    assert plain(view.take(9)) == ["eight"]
    assert view.live(9) == []


def test_an_open_mark_holds_its_rows_back() -> None:
    """Until its counterpart is there, or the line ends without it."""
    view = MarkdownView()
    view.feed("see **this is a long and bold")
    assert plain(view.take(12)) == []
    assert plain(view.live(12)) == ["see this is", "a long and", "bold"]
    view.feed(" text** and more")
    rows = view.take(12)
    assert plain(rows) == ["see this is", "a long and", "bold text"]
    assert Role.STRONG is rows[1].spans[0].role


def test_an_open_mark_does_not_hold_back_a_whole_page() -> None:
    """After a few rows it is what it looks like: two asterisks."""
    view = MarkdownView()
    view.feed("a **" + "word " * 40)
    rows = view.take(12)
    assert len(rows) > MAX_HELD_ROWS
    assert rows[0].plain == "a **word"
    view.feed("end** of it\n")
    assert all(span.role is Role.PLAIN for row in [*rows, *view.take(12)] for span in row.spans)


def test_code_that_is_written() -> None:
    """Its marks are hidden at once, a long row is given in pieces as wide as the terminal."""
    view = MarkdownView()
    view.feed("``")
    assert view.take(12) + view.live(12) == []
    view.feed("`python\nx = 1\n" + "y" * 25)
    assert plain(view.take(12)) == ["  x = 1", "  " + "y" * 10, "  " + "y" * 10]
    assert plain(view.live(12)) == ["  " + "y" * 5]
    view.feed("\n``")
    assert plain(view.take(12)) == ["  " + "y" * 5]
    assert view.live(12) == []
    view.feed("`\nafter")
    assert plain(view.take(12)) == []
    assert plain(view.live(12)) == ["", "after"]


def test_the_live_rows_are_bounded() -> None:
    """The last ones are shown where there is little room, and a table that is held back is not all shown."""
    view = MarkdownView()
    view.feed("| a |\n" * 50)
    assert view.take(40) == []
    assert len(view.live(40)) == 12
    assert len(view.live(40, 3)) == 3


def test_a_line_without_an_end_is_not_read_for_ever() -> None:
    """A very long one goes on in a new row, and no word is lost."""
    view = MarkdownView()
    rows: list[Line] = []
    for number in range(3000):
        view.feed(f"w{number} ")
        if number % 30 == 0:
            rows += view.take(60)
            assert len(view.live(60)) <= 2
    view.finish()
    rows += view.take(60)
    assert [f"w{number}" for number in range(3000)] == " ".join(plain(rows)).split()
    assert len(view.live(60)) == 0
    assert sum(len(row.plain) for row in rows) > MAX_LINE_CHARS


def test_the_width_may_change_in_the_middle() -> None:
    """Rows that were given stay as they are, the rest of the line is laid out anew."""
    view = MarkdownView()
    view.feed("- one two three four five")
    assert plain(view.take(11)) == ["- one two", "  three"]
    assert plain(view.live(11)) == ["  four five"]
    assert plain(view.live(60)) == ["  four five"]
    view.feed(" six seven\n")
    assert plain(view.take(60)) == ["  four five six seven"]


def test_hostile_text_is_harmless() -> None:
    """Sequences in pieces, in code and in text."""
    text = "a \x1b[31mred\x1b[0m b\n```\n\x1b]0;title\x07code\x1b[2J\n```\n\x1b[?1049h"
    for size in range(1, 6):
        view = MarkdownView()
        rows: list[Line] = []
        for start in range(0, len(text), size):
            view.feed(text[start : start + size])
            rows += view.take(40)
            rows += view.live(40)
        view.finish()
        rows += view.take(40)
        assert not any("\x1b" in row.plain for row in rows)
    assert plain(whole(text, 40)) == ["a red b", "", "  code"]


PARTS = st.sampled_from(
    ["word ", "a", " ", "\n", "\n\n", "**bold** ", "`code` ", "*em* ", "- item ", "1. ", "> ", "# ", "\n```\n",
     "日本語 ", "| a | b |\n", "|---|\n", "```", "longwordlongwordlongword ", "[t](u) ", "\t", "---\n", "* ", "**"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(parts=st.lists(PARTS, max_size=30), width=st.integers(16, 60), size=st.integers(1, 9))
def test_what_was_given_is_how_the_message_begins(parts: list[str], width: int, size: int) -> None:
    """In any pieces: the rows given so far are the first rows of the whole message."""
    text = "".join(parts)
    view = MarkdownView()
    rows: list[Line] = []
    for start in range(0, len(text), size):
        view.feed(text[start : start + size])
        rows += view.take(width)
        assert all(row.cells <= width for row in view.live(width))
    view.finish()
    rows += view.take(width)
    assert whole(text, width) == rows
    assert all(row.cells <= width for row in rows)
