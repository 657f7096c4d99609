"""The index against a search of everything."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.engine.drafts.ngram_index import LONGEST_MATCH, NUM_CANDIDATES, NgramIndex

tokens = st.lists(st.integers(0, 3), max_size=30)


def indexed(text: list[int]) -> NgramIndex:
    index = NgramIndex()
    index.extend(text)
    return index


def matches(text: list[int], tail: list[int]) -> dict[int, int]:
    """Place after each match of two tokens or more, and how long it is."""
    found = {}
    for place in range(2, len(text) + 1):
        size = 0
        while (
            size < min(len(tail), LONGEST_MATCH, place)
            and text[place - size - 1] == tail[len(tail) - size - 1]
        ):
            size += 1
        if size >= 2:
            found[place] = size
    return found


def test_the_longest_match_wins_and_then_the_latest() -> None:
    text = [1, 2, 3, 9, 2, 3, 8, 2, 3, 7]
    assert indexed(text).latest([2, 3]) == (9, 2)
    assert indexed(text).latest([5, 1, 2, 3]) == (3, 3)
    assert indexed(text).latest([3, 7]) == (0, 0)
    assert indexed(text).latest([3]) == (0, 0)


def test_the_nearest_match_is_looked_for_forwards_first() -> None:
    text = [2, 3, 9, 9, 2, 3, 9, 9, 2, 3]
    assert indexed(text).nearest([2, 3], 3) == (6, 2)
    assert indexed(text).nearest([2, 3], 7) == (10, 2)
    assert indexed([*text, 0]).nearest([2, 3], 11) == (10, 2)


@settings(max_examples=100, deadline=None)
@given(tokens, tokens, st.integers(0, 30))
def test_what_is_found_is_a_match_and_as_long_as_any_looked_at(
    text: list[int], tail: list[int], near: int
) -> None:
    """Of the places that a search looks at; there is a bound on these."""
    index, all_of_them = indexed(text), matches(text, tail)
    place, size = index.nearest(tail, near)
    assert size == all_of_them.get(place, 0)
    if len(all_of_them) <= NUM_CANDIDATES // 2:
        assert size == max(all_of_them.values(), default=0)
    inside = {at: length for at, length in all_of_them.items() if at < len(text)}
    place, size = index.latest(tail)
    assert size == inside.get(place, 0)
    if len(inside) <= NUM_CANDIDATES:
        assert size == max(inside.values(), default=0)


@settings(max_examples=50, deadline=None)
@given(tokens, tokens, st.integers(0, 30))
def test_truncating_is_as_if_the_rest_had_never_come(
    text: list[int], more: list[int], size: int
) -> None:
    index = indexed(text)
    index.truncate(size)
    index.extend(more)
    fresh = indexed(text[:size] + more)
    assert fresh.tokens == index.tokens
    for tail in ([a, b] for a in range(4) for b in range(4)):
        assert fresh.latest(tail) == index.latest(tail)
