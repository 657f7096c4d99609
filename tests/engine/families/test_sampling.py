"""Greedy, seeded, and never outside the nucleus."""

import numpy as np
import pytest

from tightloop.engine.families.sampling import Sampler
from tightloop.engine.interface import Sampling

LOGITS = np.array([0.0, 3.0, 2.0, -1.0], np.float32)


def choices(sampling: Sampling) -> list[int]:
    sampler = Sampler(sampling)
    return [sampler.choose(LOGITS) for _ in range(200)]


def test_temperature_zero_takes_the_best() -> None:
    assert set(choices(Sampling())) == {1}


def test_the_same_seed_repeats_and_another_differs() -> None:
    first = choices(Sampling(temperature=1.0, seed=5))
    assert first == choices(Sampling(temperature=1.0, seed=5))
    assert first != choices(Sampling(temperature=1.0, seed=6))
    assert {1, 2} <= set(first)


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    assert set(choices(Sampling(temperature=1.0, top_p=0.5, seed=1))) == {1}
    assert set(choices(Sampling(temperature=1.0, top_p=0.9, seed=1))) == {1, 2}


def test_shares_follow_the_softmax() -> None:
    share = choices(Sampling(temperature=1.0, seed=2)).count(1) / 200
    assert 0.55 < share < 0.8  # softmax gives 0.69


def test_extreme_logits_do_not_overflow() -> None:
    sampler = Sampler(Sampling(temperature=0.1, seed=3))
    assert sampler.choose(np.array([1e4, -1e4], np.float32)) == 0


MIXED = np.array([1.0, 3.0, 2.0, 3.0, -np.inf], np.float32)


def test_ranked_is_best_first_and_leaves_out_the_impossible() -> None:
    possible = np.array([True, False, True, True, True])
    assert list(Sampler(Sampling()).ranked(MIXED, possible)) == [3, 2, 0, 4]
    assert list(Sampler(Sampling()).ranked(MIXED, np.zeros(5, np.bool_))) == []


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("num_vocab", [1, 255, 256, 257, 9000])
def test_ranked_gives_every_possible_token_once(num_vocab: int, temperature: float) -> None:
    """Also where many logits are equal, as in a one-hot row."""
    logits = np.zeros(num_vocab, np.float32)
    logits[-1] = 1
    sampler = Sampler(Sampling(temperature=temperature, top_p=0.5, seed=1))
    given = list(sampler.ranked(logits, np.ones(num_vocab, np.bool_)))
    assert sorted(given) == list(range(num_vocab))
    assert temperature or given[0] == num_vocab - 1


def test_the_first_of_ranked_is_drawn_like_a_choice_among_the_possible() -> None:
    """Shares of 2000 draws lie within 5 standard deviations of the softmax of those two."""
    sampler = Sampler(Sampling(temperature=1.0, seed=7))
    possible = np.array([True, False, True, False, False])
    draws = [next(sampler.ranked(MIXED, possible)) for _ in range(2000)]
    share = float(1 / (1 + np.exp(-1.0)))
    spread = float(np.sqrt(share * (1 - share) / 2000))
    assert abs(draws.count(2) / 2000 - share) < 5 * spread


def test_the_nucleus_comes_first() -> None:
    sampler = Sampler(Sampling(temperature=1.0, top_p=0.5, seed=3))
    for _ in range(50):
        given = list(sampler.ranked(MIXED, np.ones(5, np.bool_)))
        assert set(given[:2]) <= {1, 3}
