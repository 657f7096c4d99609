"""Tokens that forks share behave like lists that nobody shares."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.engine.families.held_tokens import PIECE_TOKENS, HeldTokens

sizes = st.sampled_from([0, 1, 700, PIECE_TOKENS - 1, PIECE_TOKENS, PIECE_TOKENS + 1, 2500])
places = st.integers(-6000, 6000)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["extend", "append", "truncate", "fork"]), sizes, st.integers(0)),
        max_size=12,
    ),
    cuts=st.lists(st.tuples(places, places), min_size=1, max_size=6),
)
def test_forks_do_not_notice_each_other(
    steps: list[tuple[str, int, int]], cuts: list[tuple[int, int]]
) -> None:
    """Whatever is done to any of them, in whatever order."""
    held, plain = [HeldTokens()], [list[int]()]
    fresh = iter(range(1_000_000))
    for step, size, which in steps:
        ours, theirs = held[which % len(held)], plain[which % len(held)]
        kept = min(size, len(theirs))
        if step == "extend":
            new = [next(fresh) for _ in range(size)]
            ours.extend(new)
            theirs.extend(new)
        elif step == "append":
            ours.append(size)
            theirs.append(size)
        elif step == "truncate":
            ours.truncate(kept)
            del theirs[kept:]
        else:
            held.append(ours.fork(kept))
            plain.append(theirs[:kept])
    for ours, theirs in zip(held, plain, strict=True):
        assert len(ours) == len(theirs)
        assert list(ours) == theirs
        assert ours[::-7] == theirs[::-7]
        assert [ours[start:end] for start, end in cuts] == [theirs[a:b] for a, b in cuts]
        if theirs:
            assert (ours[0], ours[-1]) == (theirs[0], theirs[-1])
    with pytest.raises(IndexError):
        held[0][len(held[0])]


def test_a_fork_copies_no_more_than_a_piece() -> None:
    """What is in whole pieces is the very same afterwards, in both."""
    held = HeldTokens(range(10 * PIECE_TOKENS + 5))
    first = held.fork(10 * PIECE_TOKENS)
    second = first.fork(9 * PIECE_TOKENS + 1)
    assert all(a is b for a, b in zip(held._pieces, first._pieces, strict=True))
    assert all(a is b for a, b in zip(held._pieces, second._pieces, strict=False))
    assert len(second._pieces) == 9
