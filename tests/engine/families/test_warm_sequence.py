"""Sequences that stay warm, and make way for each other while they are evaluated."""

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from tightloop.engine.crowd import Crowd
from tightloop.engine.families.held_tokens import HeldTokens
from tightloop.engine.families.warm_sequence import CHUNK_TOKENS, WarmSequence, common_prefix
from tightloop.engine.interface import EngineError, Evaluate
from tightloop.engine.scripted_backend import ScriptedBackend
from tightloop.engine.sequence_pool import SequencePool

Steps = Generator[Evaluate | None, Any, Any]


def pool_of(num_cells: int) -> SequencePool:
    backend = ScriptedBackend(lambda _: 7, context_window=1 << 16, num_cells=num_cells)
    return SequencePool(backend, lambda: False)


def finished(
    pool: SequencePool, steps: Steps, *, is_stuck: bool = False, asked: list[int] | None = None
) -> Any:
    """What the steps return; with ``is_stuck`` they wait for others instead.

    ``asked`` gets the number of tokens of each step.
    """
    num_waits = 0
    try:
        wanted = next(steps)
        while num_waits < 10:
            if wanted is None:
                num_waits += 1
                wanted = next(steps) if num_waits < 10 else None
                continue
            if asked is not None:
                asked.append(len(wanted.tokens))
            try:
                logits = pool.evaluate(wanted.sequence, wanted.tokens)
            except EngineError as error:
                wanted = steps.throw(error)
            else:
                wanted = steps.send(logits)
    except StopIteration as end:
        assert not is_stuck
        return end.value
    assert is_stuck
    return None


def test_common_prefix_counts_equal_leading_tokens() -> None:
    assert common_prefix([1, 2, 3], [1, 2, 4, 5]) == 2
    assert common_prefix([1, 2], [1, 2, 3]) == 2
    assert common_prefix([], [1]) == 0
    assert common_prefix([9], [1]) == 0
    long = list(range(10_000))
    assert common_prefix(long, [*long[:9_000], 0, *long[9_001:]]) == 9_000
    assert common_prefix(long, [*long, 1]) == 10_000


def test_a_parked_sequence_is_read_again_in_chunks_when_it_goes_on() -> None:
    pool, place = pool_of(10_000), Crowd().enter()
    warm = WarmSequence(pool, pool.open())
    finished(pool, warm.evaluate(place, [1] * 1200))
    warm.tokens.extend([1] * 1200)
    warm.park()
    assert list(warm.sequences) == []
    asked: list[int] = []
    logits = finished(pool, warm.evaluate(place, [2]), asked=asked)
    assert int(np.argmax(logits)) == 7
    assert asked == [CHUNK_TOKENS, CHUNK_TOKENS, 1200 - 2 * CHUNK_TOKENS, 1]
    assert pool.num_tokens(warm.sequence) == 1201


def test_alone_it_fails_where_there_is_no_room() -> None:
    pool = pool_of(10)
    warm = WarmSequence(pool, pool.open())
    with pytest.raises(EngineError, match="full") as refused:
        finished(pool, warm.evaluate(Crowd().enter(), [1] * 11))
    assert refused.value.code == "server_is_overloaded"


def test_the_younger_makes_way_and_comes_back_when_the_older_has_left() -> None:
    pool, crowd = pool_of(100), Crowd()
    first, second = crowd.enter(), crowd.enter()
    old, young = WarmSequence(pool, pool.open()), WarmSequence(pool, pool.open())
    for warm, place in ((old, first), (young, second)):
        finished(pool, warm.evaluate(place, [1] * 45))
        warm.tokens.extend([1] * 45)
    steps = young.evaluate(second, [1] * 20)
    finished(pool, steps, is_stuck=True)
    assert young.is_parked
    finished(pool, old.evaluate(first, [1] * 40))
    old.release()
    first.leave()
    finished(pool, steps)
    assert pool.num_tokens(young.sequence) == 65


def test_one_that_finds_no_room_half_way_gives_back_what_it_had() -> None:
    """Then the oldest waits for the younger with nothing, and not with a half of its own."""
    pool, crowd = pool_of(1000), Crowd()
    first, second = crowd.enter(), crowd.enter()
    other = WarmSequence(pool, pool.open())
    finished(pool, other.evaluate(second, [1] * 300))
    warm = WarmSequence(pool, pool.open(), tokens=HeldTokens([1] * 900))
    warm.park()
    steps = warm.evaluate(first, [2])
    finished(pool, steps, is_stuck=True)
    other.release()
    finished(pool, steps)
    assert pool.num_tokens(warm.sequence) == 901
