"""Which source drafts, how many tokens, and what is learnt from it."""

import pytest

from tightloop.engine.drafts.aligned import AlignedCursor
from tightloop.engine.drafts.drafter import (
    RETRY_ANSWERS,
    REVIEW_TOKENS,
    Acceptance,
    Drafter,
    Kind,
    Speculation,
)
from tightloop.engine.drafts.lookup import PromptLookup
from tightloop.engine.drafts.ngram_index import NgramIndex
from tightloop.engine.drafts.policy import OFF
from tightloop.engine.drafts.source import NUM_LEVELS

FLAT = {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}
DEAR = {1: 1.0, 2: 1.5, 4: 2.5, 8: 4.5}


def predicting(tokens: list[int], costs: dict[int, float]) -> Drafter:
    cursor = AlignedCursor(is_at_start=True)
    cursor.extend(tokens)
    return Drafter(Speculation(costs), [(Kind.PREDICTION, cursor)])


def test_rates_are_moving_averages() -> None:
    """They follow what happens, and forget what was before."""
    acceptance = Acceptance(Kind.HISTORY)
    for _ in range(200):
        acceptance.note(2, is_right=True)
    assert acceptance.rates[2] > 0.95
    for _ in range(200):
        acceptance.note(2, is_right=False)
    assert acceptance.rates[2] < 0.1
    assert acceptance.rates[0] == Acceptance(Kind.HISTORY).rates[0]


def test_later_drafts_count_with_the_trust_that_the_earlier_would_earn() -> None:
    acceptance = Acceptance(Kind.FILE)
    ahead = acceptance.ahead(0, 40)
    assert ahead[0] == acceptance.rates[0]
    assert ahead[39] == acceptance.rates[NUM_LEVELS - 1]


def test_a_prediction_is_drafted_at_once() -> None:
    drafter = predicting(list(range(20)), FLAT)
    drafter.accept(0)
    assert list(drafter.propose(100)) == [1, 2, 3, 4, 5, 6, 7]
    assert list(drafter.propose(2)) == [1, 2]
    assert list(drafter.propose(0)) == []


def test_a_source_that_is_wrong_is_given_up_and_comes_back_when_it_is_right() -> None:
    """Whether it is right is seen without checking any draft."""
    tokens = [n for pair in ((n, n + 1, 500 + n) for n in range(0, 400, 2)) for n in pair]
    drafter = predicting(tokens, DEAR)
    drafter.accept(0)
    assert drafter.propose(100)
    for n in range(2, 300, 2):  # the cursor finds each pair, and what follows is another token
        for token in (n, n + 1, 900 + n):
            drafter.accept(token)
    for token in (300, 301):
        drafter.accept(token)
    assert not drafter.propose(100)
    place = tokens.index(301) + 1
    for token in tokens[place : place + 100]:
        drafter.accept(token)
    assert drafter.propose(100)


def test_the_source_that_promises_most_drafts() -> None:
    lookup = PromptLookup(NgramIndex(), [1, 2, 3, 4, 5])
    lookup.index_more(10)
    prediction = AlignedCursor(is_at_start=True)
    prediction.extend([1, 2, 9, 9, 9])
    speculation = Speculation(FLAT)
    drafter = Drafter(speculation, [(Kind.PREDICTION, prediction), (Kind.HISTORY, lookup)])
    for token in (1, 2):
        drafter.accept(token)
    assert list(drafter.propose(2)) == [9, 9]
    drafter.settle(2, 0)
    for _ in range(100):
        speculation.note(Kind.PREDICTION, 2, is_right=False)
        speculation.note(Kind.HISTORY, 2, is_right=True)
    assert list(drafter.propose(2)) == [3, 4]
    drafter.settle(2, 1)
    assert (drafter.total.num_drafted, drafter.total.num_accepted) == (4, 1)
    assert (drafter.prediction.num_drafted, drafter.prediction.num_accepted) == (2, 0)


def test_sessions_beside_it_make_a_draft_dearer() -> None:
    drafter = predicting(list(range(20)), {1: 1.0, 4: 1.0, 8: 4.0, 16: 16.0})
    drafter.accept(0)
    assert len(drafter.propose(100)) == 3
    assert not drafter.propose(100, num_others=3)


def test_one_chore_is_done_before_each_proposal() -> None:
    done = []

    def chores() -> object:
        for n in range(2):
            done.append(n)
            yield

    drafter = predicting([1, 2, 3], FLAT)
    drafter.chores = chores()  # type: ignore[assignment]
    for expected in ([0], [0, 1], [0, 1]):
        drafter.propose(4)
        assert expected == done


def test_no_curve_means_no_drafts() -> None:
    assert not Speculation({}).begin()
    assert not Speculation({1: 1.0, 4: 3.9}).begin()
    assert Speculation(FLAT).begin()


def learning(taken_ns: int) -> Speculation:
    """What steps of eight tokens took ``taken_ns`` for, and steps of one 100 ns."""
    speculation = Speculation({1: 1.0, 8: 1.0}, learns=True)
    for size, taken in [(1, 100), (8, taken_ns)] * 8:
        speculation.note_step(size, taken)
    for _ in range(REVIEW_TOKENS):
        speculation.note(Kind.PREDICTION, 2, is_right=True)
    return speculation


def test_what_steps_take_corrects_what_was_measured_at_load() -> None:
    assert learning(200).plan(Kind.PREDICTION, 2, 0).num_drafts == 7
    assert learning(790).plan(Kind.PREDICTION, 2, 0) == OFF


def test_a_model_that_lost_by_drafts_tries_again_after_some_answers() -> None:
    speculation = learning(790)
    tries = [speculation.begin() for _ in range(RETRY_ANSWERS + 1)]
    assert [*[False] * RETRY_ANSWERS, True] == tries
    assert speculation.plan(Kind.PREDICTION, 2, 0) == OFF
    for _ in range(8):
        speculation.note_step(1, 100)
    assert speculation.plan(Kind.PREDICTION, 2, 0).num_drafts == 7


@pytest.mark.parametrize(("taken_ns", "is_refused"), [(500_000, True), (5_000_000, False)])
def test_following_sources_in_vain_ends_where_it_is_dear(taken_ns: int, is_refused: bool) -> None:
    """A twentieth of a short step is too much for nothing, and nothing of a long one."""
    speculation = Speculation({1: 1.0, 8: 1.0}, learns=True)
    for _ in range(8):
        speculation.note_step(1, taken_ns)
    speculation.note_answer(200, 0)
    assert speculation.begin()
    speculation.note_answer(200, 3)
    assert speculation.begin() != is_refused
    tries = [speculation.begin() for _ in range(RETRY_ANSWERS)]
    assert tries[-1]
    speculation.note_answer(400, 40)
    assert speculation.begin()


def test_given_costs_are_not_corrected() -> None:
    speculation = Speculation({1: 1.0, 8: 1.0})
    for size, taken_ns in [(1, 100), (8, 800)] * 8:
        speculation.note_step(size, taken_ns)
    for _ in range(REVIEW_TOKENS):
        speculation.note(Kind.PREDICTION, 2, is_right=True)
    assert speculation.plan(Kind.PREDICTION, 2, 0).num_drafts == 7
