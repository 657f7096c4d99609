"""Which texts of a conversation may be repeated, and how."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tightloop.engine.drafts.references import (
    MAX_CHARS,
    MAX_TEXTS,
    PIECE_CHARS,
    edited_texts,
    patch_context,
    pieces,
    quoted,
    without_numbers,
)
from tightloop.engine.interface import Node
from tightloop.protocol.items import CustomToolCallOutput, FunctionCallOutput, user_message

SHOWN = "def f(x):\n    return x + 1\n" * 5


def test_the_latest_outputs_come_first_also_from_earlier_responses() -> None:
    older = Node("r1", None, (user_message("hi"), FunctionCallOutput("a", "A" * 100)))
    parent = Node("r2", older, (FunctionCallOutput("b", "B" * 100),))
    items = (CustomToolCallOutput("c", "C" * 100), FunctionCallOutput("d", "short"))
    assert [text[0] for text in edited_texts(items, parent)] == ["C", "B", "A"]


def test_no_more_is_looked_at_than_a_turn_may_cost() -> None:
    node: Node | None = None
    for n in range(100):
        node = Node(f"r{n}", node, (FunctionCallOutput("a", f"{n} " * 50_000),))
    found = edited_texts((), node)
    assert len(found) == MAX_TEXTS
    assert found[0].startswith("99 ")
    assert max(map(len, found)) <= MAX_CHARS


def test_line_numbers_of_a_listing_are_no_part_of_the_file() -> None:
    lines = SHOWN.splitlines(keepends=True)
    for form in ("{:6d}\t{}", "{}: {}", "{}| {}"):
        listed = "".join(form.format(n, line) for n, line in enumerate(lines, 1))
        assert without_numbers(listed) == SHOWN
    assert without_numbers("1: one\ntwo\nthree\n") == "1: one\ntwo\nthree\n"
    assert without_numbers("") == ""


def test_spellings() -> None:
    assert quoted('a "b"\n\té') == 'a \\"b\\"\\n\\té'
    assert patch_context("a\n\nb") == " a\n \n b"


@given(st.text("ab\n", max_size=4 * PIECE_CHARS))
def test_pieces_are_the_text_in_bounded_parts(text: str) -> None:
    parts = list(pieces(text))
    assert "".join(parts) == text
    assert all(0 < len(part) <= PIECE_CHARS for part in parts)


@given(st.text())
def test_quoted_is_what_json_reads(text: str) -> None:
    assert json.loads(f'"{quoted(text)}"') == text
