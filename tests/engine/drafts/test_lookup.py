"""Prompt lookup."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.engine.drafts.lookup import PromptLookup
from tightloop.engine.drafts.ngram_index import NgramIndex
from tightloop.engine.drafts.source import NOTHING


def following(prompt: list[int], answer: list[int]) -> PromptLookup:
    lookup = PromptLookup(NgramIndex(), prompt)
    while not lookup.is_ready:
        lookup.index_more(3)
    for token in answer:
        lookup.accept(token)
    return lookup


def test_what_followed_the_same_tokens_is_proposed() -> None:
    lookup = following([1, 2, 3, 4, 5, 6], [2, 3])
    assert lookup.expected == 4
    assert list(lookup.propose(2)) == [4, 5]
    assert list(lookup.propose(5)) == [4, 5, 6, 2, 3]


def test_nothing_is_proposed_for_what_was_never_said() -> None:
    lookup = following([1, 2, 3], [7, 8])
    assert lookup.expected == NOTHING
    assert list(lookup.propose(4)) == []


def test_its_place_is_kept_while_it_is_right() -> None:
    """A later occurrence of the same pair does not draw it away."""
    lookup = following([1, 2, 3, 4, 9, 9, 3, 4, 8], [1, 2, 3, 4])
    assert lookup.expected == 9
    assert lookup.run == 4


def test_the_answer_itself_is_looked_through() -> None:
    assert list(following([], [5, 6, 7, 5, 6]).propose(3)) == [7, 5, 6]


def test_what_repeats_itself_goes_on_doing_so() -> None:
    assert list(following([], [5, 6, 7, 5, 6]).propose(8)) == [7, 5, 6, 7, 5, 6, 7, 5]
    assert list(following([], [9, 9, 9]).propose(4)) == [9, 9, 9, 9]


def test_what_is_said_while_the_prompt_is_being_indexed_is_not_lost() -> None:
    prompt = list(range(10))
    lookup = PromptLookup(NgramIndex(), prompt)
    lookup.index_more(4)
    for token in (2, 3, 20, 21):
        lookup.accept(token)
    assert lookup.expected == NOTHING
    lookup.index_more(100)
    assert lookup.is_ready
    for token in (20, 21):
        lookup.accept(token)
    assert list(lookup.propose(2)) == [20, 21]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=20), st.lists(st.integers(0, 3), max_size=20))
def test_what_is_expected_followed_the_last_two_tokens_before(
    prompt: list[int], answer: list[int]
) -> None:
    lookup = following(prompt, answer)
    held = [*prompt, *answer]
    followers = {held[n + 2] for n in range(len(held) - 2) if held[n : n + 2] == held[-2:]}
    if lookup.expected != NOTHING:
        assert lookup.expected in followers
        assert lookup.run >= 2
        assert list(lookup.propose(3))[:1] == [lookup.expected]
