"""Greedy, seeded, and never outside the nucleus."""

import numpy as np

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
