"""Head and tail, whatever the pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.sandbox.output import HeadAndTail


@given(
    st.binary(max_size=300),
    st.lists(st.integers(1, 40), max_size=20),
    st.integers(2, 64),
)
def test_the_pieces_do_not_matter(data: bytes, sizes: list[int], limit: int) -> None:
    """Any cutting gives the same text and keeps first and last bytes only."""
    whole, pieces = HeadAndTail(limit), HeadAndTail(limit)
    whole.add(data)
    rest = data
    for size in sizes:
        pieces.add(rest[:size])
        rest = rest[size:]
    pieces.add(rest)
    assert whole.text() == pieces.text()
    assert (len(data) > limit) == pieces.is_truncated
    assert len(data) == pieces.num_bytes


def test_memory_is_bounded() -> None:
    """Many pieces leave no more than the limit, give or take one trimming."""
    kept = HeadAndTail(100)
    for _ in range(1000):
        kept.add(b"x" * 99)
    assert len(kept._head) + len(kept._tail) <= 250


def test_a_cut_character_is_left_out() -> None:
    """Cutting may fall inside a character; no replacement character appears for that."""
    kept = HeadAndTail(4)
    kept.add("aäöüx".encode())
    assert kept.text() == "a\n[... 4 bytes left out ...]\nx"


def test_invalid_bytes_are_replaced() -> None:
    """What the program really wrote wrong stays visible."""
    kept = HeadAndTail(10)
    kept.add(b"a\xffb")
    assert kept.text() == "a\ufffdb"


def test_a_useless_limit_is_refused() -> None:
    """One byte has no head and tail."""
    with pytest.raises(ValueError, match="got 1"):
        HeadAndTail(1)
