"""Files as lines: endings, byte order marks, and bytes that no edit touches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.agent.patch.failure import PatchError
from tightloop.agent.patch.text import Edit, FileText, positions


@given(st.binary(max_size=60).filter(lambda content: b"\0" not in content))
def test_without_edits_every_byte_comes_back(content: bytes) -> None:
    assert FileText(content).edited([]) == content


@given(
    st.lists(st.sampled_from(["a\n", "b\r\n", "\n", "c"]), max_size=6),
    st.integers(0, 6),
    st.integers(0, 3),
    st.integers(0, 2),
)
def test_an_edit_leaves_the_lines_around_it(
    pieces: list[str], start: int, num_old: int, num_new: int
) -> None:
    content = "".join(pieces).encode()
    text = FileText(content)
    start = min(start, len(text.lines))
    num_old = min(num_old, len(text.lines) - start)
    after = FileText(text.edited([Edit(start, num_old, ("n",) * num_new)])).lines
    expected = [*text.lines[:start], *["n"] * num_new, *text.lines[start + num_old :]]
    assert expected == after


def test_equal_starts_keep_their_order() -> None:
    edits = [Edit(1, 0, ("x",)), Edit(1, 1, ("y",))]
    assert FileText(b"a\nb\n").edited(edits) == b"a\nx\ny\n"


def test_new_lines_take_the_first_ending() -> None:
    assert FileText(b"a\r\nb\n").edited([Edit(2, 0, ("c",))]) == b"a\r\nb\nc\r\n"
    assert FileText(b"a\nb\r\n").edited([Edit(2, 0, ("c",))]) == b"a\nb\r\nc\n"


def test_binary_is_refused() -> None:
    with pytest.raises(PatchError, match="binary"):
        FileText(b"\0")


def test_positions_overlap_and_are_bounded() -> None:
    assert positions(["a", "a", "a"], ["a", "a"], 0) == [0, 1]
    assert len(positions(["a"] * 100, ["a"], 0)) == 20
