"""The cursor in a file while the answer repeats it with changes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.engine.drafts.aligned import GAP, AlignedCursor
from tightloop.engine.drafts.source import NOTHING

FILE = list(range(100, 140))


def cursor(*, is_at_start: bool = False) -> AlignedCursor:
    made = AlignedCursor(is_at_start=is_at_start)
    made.extend(FILE)
    return made


def num_expected(follower: AlignedCursor, answer: list[int]) -> int:
    """Tokens of the answer that were expected."""
    right = 0
    for token in answer:
        right += follower.expected == token
        follower.accept(token)
    return right


def test_a_prediction_is_expected_from_its_first_token_on() -> None:
    assert num_expected(cursor(is_at_start=True), FILE) == len(FILE)


def test_a_file_is_found_by_two_tokens() -> None:
    assert num_expected(cursor(), FILE) == len(FILE) - 2


@pytest.mark.parametrize(
    ("answer", "num_missed"),
    [
        ([*FILE[:10], 1, 2, 3, *FILE[10:]], 3 + 2),  # inserted
        ([*FILE[:10], *FILE[15:]], 2),  # left out
        ([*FILE[:10], 1, 2, 3, *FILE[13:]], 3 + 2),  # replaced
        ([*FILE[:10], 1, *FILE[20:25], 2, *FILE[30:]], 2 + 4),  # twice
        ([*FILE[20:30], *FILE[:10]], 2 + 2),  # moved, the second part backwards
    ],
)
def test_it_finds_its_place_again_after_a_change(answer: list[int], num_missed: int) -> None:
    """What is new is missed, and two tokens after each change."""
    is_at_start = answer[0] == FILE[0]
    assert num_expected(cursor(is_at_start=is_at_start), answer) == len(answer) - num_missed


def test_of_two_like_places_the_next_one_is_taken() -> None:
    follower = AlignedCursor()
    follower.extend([1, 2, 3, 7, 8, 4, 5, 7, 8, 6])
    for token in (3, 7, 8, 4, 99, 7, 8):
        follower.accept(token)
    assert follower.expected == 6


def test_texts_of_one_reference_are_kept_apart() -> None:
    follower = AlignedCursor()
    for text in ([1, 2, 3], [GAP], [4, 5, 6]):
        follower.extend(text)
    for token in (1, 2):
        follower.accept(token)
    assert list(follower.propose(5)) == [3]
    follower.accept(3)
    assert follower.expected == NOTHING
    assert list(follower.propose(5)) == []


def test_the_reference_may_grow_while_the_answer_goes_on() -> None:
    follower = AlignedCursor(is_at_start=True)
    follower.extend([1, 2])
    for token in (1, 2):
        follower.accept(token)
    assert follower.expected == NOTHING
    follower.extend([3, 4])
    assert list(follower.propose(5)) == [3, 4]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 5), max_size=30),
    st.lists(st.integers(0, 5), max_size=30),
    st.booleans(),
)
def test_any_answer_leaves_it_with_a_place_that_agrees(
    reference: list[int], answer: list[int], is_at_start: bool
) -> None:
    """What it expects follows ``run`` tokens that are the answer's last ones."""
    follower = AlignedCursor(is_at_start=is_at_start)
    follower.extend(reference)
    for token in answer:
        follower.accept(token)
    proposed = list(follower.propose(3))
    assert proposed[:1] == ([] if follower.expected == NOTHING else [follower.expected])
    if proposed and answer and follower.run:
        said = [*answer[-follower.run :], *proposed]
        places = range(len(reference) - len(said) + 1)
        assert any(reference[at : at + len(said)] == said for at in places)
