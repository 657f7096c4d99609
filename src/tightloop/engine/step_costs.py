"""What a step of several tokens costs, in steps of one: decides whether drafts pay.

Every candidate size is measured, none interpolated: the curve is not smooth, because kernels switch
(design/0016-warm-sessions.md has some curves).
"""

from collections.abc import Callable, Iterator
from typing import Final

from tightloop.engine.interface import TokenModel

SIZES: Final = (1, 2, 4, 8, 16)

FIRST_SIZES: Final = (1, 4)
"""Measured once whatever it takes: without these two nothing can be decided."""

MAX_ROUNDS: Final = 5
SURE_ROUNDS: Final = 3
"""One measurement on a busy machine can be ten times too long; seldom are all of three."""

ENOUGH_NS: Final = 50_000_000
"""After this no size is measured again that was measured three times."""

TOO_LONG_NS: Final = 300_000_000
"""Nothing more is measured after this."""


def measure(model: TokenModel, now_ns: Callable[[], int]) -> dict[int, float]:
    """c(k) of each size measured; c(1) is 1. The owner thread calls it.

    The least of up to five times each: what disturbs a measurement only adds to it. Raises
    ``EngineError`` when the model has no room for one sequence of 17 tokens.
    """
    sequence = model.open()
    best: dict[int, int] = {}
    counts = dict.fromkeys(SIZES, 0)
    try:
        model.evaluate(sequence, [0])  # also what only the first step pays for
        start_ns = now_ns()
        for size in _plan():
            limit_ns = ENOUGH_NS if counts[size] >= SURE_ROUNDS else TOO_LONG_NS
            is_needed = size in FIRST_SIZES and not counts[size]
            if now_ns() - start_ns > limit_ns and not is_needed:
                continue
            if size == 1 and counts[1]:
                # Decoding is one such step after another, and llama.cpp keeps the graph of the step
                # before: on a 3M model the first one after a longer step takes twice as long.
                model.evaluate(sequence, [0])
                model.truncate(sequence, 1)
            tokens = [n % model.num_vocab for n in range(size)]
            before_ns = now_ns()
            model.evaluate(sequence, tokens, all_logits=True)
            taken_ns = now_ns() - before_ns
            best[size] = min(taken_ns, best.get(size, taken_ns))
            counts[size] += 1
            model.truncate(sequence, 1)
    finally:
        model.close(sequence)
    one_ns = max(best[1], 1)
    return {size: 1.0 if size == 1 else best[size] / one_ns for size in sorted(best)}


def _plan() -> Iterator[int]:
    yield from (*FIRST_SIZES, 16, 8, 2)
    for _ in range(MAX_ROUNDS - 1):
        yield from SIZES
