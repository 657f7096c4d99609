"""Draft lengths on given cost curves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.engine.drafts.policy import OFF, beside, ceiling, pays, plan

FLAT = {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0, 16: 1.0}
SMALL_ON_CPU = {1: 1.0, 4: 3.8, 8: 7.5, 16: 14.8}
LARGE_ON_CPU = {1: 1.0, 4: 1.9, 8: 3.2, 16: 4.2}
KINKED = {1: 1.0, 4: 4.5, 8: 5.2, 16: 8.0}
"""Eight tokens cost hardly more than four: kernels switch."""


def test_a_free_step_takes_as_many_drafts_as_it_can() -> None:
    assert plan(FLAT, [0.9]).num_drafts == 15


def test_steps_that_cost_by_the_token_take_none() -> None:
    assert plan(SMALL_ON_CPU, [0.9]) == OFF
    assert not pays({1: 1.0, 4: 3.9, 8: 7.7})
    assert not pays({})
    assert not pays({1: 1.0})


def test_the_number_follows_the_acceptance() -> None:
    """Figures worked out by hand from E(k) = (1 - a^k) / (1 - a)."""
    assert plan(LARGE_ON_CPU, [0.2]) == OFF
    assert plan(LARGE_ON_CPU, [0.7]).num_drafts == 3
    assert plan(LARGE_ON_CPU, [0.7]).gain == pytest.approx((1 - 0.7**4) / 0.3 / 1.9)
    assert plan(LARGE_ON_CPU, [0.95]).num_drafts == 15
    assert plan(LARGE_ON_CPU, [0.95]).gain == pytest.approx((1 - 0.95**16) / 0.05 / 4.2)


def test_a_kink_in_the_curve_is_used() -> None:
    assert plan(KINKED, [0.9]).num_drafts == 7


def test_a_gain_below_the_margin_is_none() -> None:
    assert plan({1: 1.0, 2: 1.9}, [0.99]) == OFF
    assert plan({1: 1.0, 2: 1.8}, [0.99]).num_drafts == 1


def test_drafts_after_the_first_may_be_surer() -> None:
    assert plan(LARGE_ON_CPU, [0.6, 0.99]).num_drafts == 15


def test_the_ceiling_is_the_gain_of_perfect_drafts() -> None:
    assert ceiling(LARGE_ON_CPU) == pytest.approx(16 / 4.2)
    assert ceiling({}) == 1.0


def test_beside_others_the_shared_step_is_what_is_compared() -> None:
    """Sizes that were not measured count as the next one that makes drafts look worse."""
    assert beside(LARGE_ON_CPU, 0) == LARGE_ON_CPU
    assert beside(LARGE_ON_CPU, 3) == {1: 1.0, 4: 3.2 / 1.9, 8: 4.2 / 1.9}
    assert beside(LARGE_ON_CPU, 99) == {1: 1.0}


def test_others_who_wait_longer_count() -> None:
    """A step that takes twice as long for five tokens of one slows three others down."""
    costs = {1: 1.0, 8: 2.0}
    assert plan(costs, [0.9]).num_drafts == 7
    assert plan(costs, [0.9], num_others=7) == OFF


@given(
    st.dictionaries(st.sampled_from((2, 4, 8, 16)), st.floats(0.5, 20), max_size=4),
    st.lists(st.floats(0, 1), min_size=1, max_size=16),
    st.integers(0, 9),
)
def test_a_plan_is_off_or_gains(
    measured: dict[int, float], acceptance: list[float], num_others: int
) -> None:
    costs = {1: 1.0} | measured
    found = plan(beside(costs, num_others), acceptance, num_others)
    assert found == OFF or (found.gain >= 1.05 and found.num_drafts + 1 in costs)
