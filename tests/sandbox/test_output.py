"""Head and tail, whatever the pieces."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.sandbox.output import HeadAndTail

lines_of_bytes = st.lists(st.sampled_from([b"\n", b"a", b"\xc3\xa4", b"\xff", b"\r\n"])).map(
    b"".join
)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in pieces of these sizes, the rest in one."""
    pieces, rest = [], data
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    return [*pieces, rest]


@given(
    st.binary(max_size=300) | lines_of_bytes,
    st.lists(st.integers(1, 40), max_size=20),
    st.integers(2, 64),
)
def test_the_pieces_do_not_matter(data: bytes, sizes: list[int], limit: int) -> None:
    """Any cutting gives the same text and keeps first and last bytes only."""
    whole, pieces = HeadAndTail(limit), HeadAndTail(limit)
    whole.add(data)
    for piece in cut(data, sizes):
        pieces.add(piece)
    assert whole.text() == pieces.text()
    assert (len(data) > limit) == pieces.is_truncated
    assert len(data) == pieces.num_bytes


@given(lines_of_bytes, st.integers(2, 64))
def test_what_is_missing_is_said_in_bytes_and_lines(data: bytes, limit: int) -> None:
    """Together with what is kept it is all there was, counted from the data itself."""
    kept = HeadAndTail(limit)
    kept.add(data)
    if len(data) <= limit:
        assert data.decode(errors="replace") == kept.text()
        return
    middle = data[limit // 2 : len(data) - (limit - limit // 2)]
    note = f"\n[... {len(middle)} bytes in {middle.count(10)} lines left out ...]\n"
    head, found, tail = kept.text().partition(note)
    assert found
    assert data[: limit // 2].decode(errors="ignore") == head.replace("\ufffd", "")
    last = data[len(data) - (limit - limit // 2) :]
    assert last.decode(errors="ignore") == tail.replace("\ufffd", "")


@given(st.lists(st.integers(0, 5000), max_size=30), st.integers(2, 500))
def test_memory_is_bounded(sizes: list[int], limit: int) -> None:
    """However many pieces there are, and however long they are."""
    kept = HeadAndTail(limit)
    for size in sizes:
        kept.add(b"x" * size)
        assert len(kept._head) + len(kept._tail) <= limit + limit // 2 + 2
    assert sum(sizes) == kept.num_bytes


def test_a_gigabyte_leaves_head_and_tail() -> None:
    """P10: nothing in between is held, whatever its length."""
    kept = HeadAndTail(100)
    kept.add(b"head\n")
    piece = b"x" * ((1 << 20) - 1) + b"\n"
    for _ in range(1024):
        kept.add(piece)
    kept.add(b"tail")
    assert re.search(r"\n\[\.\.\. 1073741733 bytes in 1023 lines left out \.\.\.\]\n", kept.text())
    assert kept.text().startswith("head\nx")
    assert kept.text().endswith("x\ntail")


def test_a_cut_character_is_left_out() -> None:
    """Cutting may fall inside a character; no replacement character appears for that."""
    kept = HeadAndTail(4)
    kept.add("aäöüx".encode())
    assert kept.text() == "a\n[... 4 bytes in 0 lines left out ...]\nx"


def test_invalid_bytes_are_replaced() -> None:
    """What the program really wrote wrong stays visible, also after a cut."""
    kept = HeadAndTail(10)
    kept.add(b"a\xffb")
    assert kept.text() == "a\ufffdb"
    kept.add(b"x" * 20 + b"\xffb")
    assert kept.text().endswith("left out ...]\nxxx\ufffdb")


def test_a_useless_limit_is_refused() -> None:
    """One byte has no head and tail."""
    with pytest.raises(ValueError, match="got 1"):
        HeadAndTail(1)
