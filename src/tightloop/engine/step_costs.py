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
ENOUGH_NS: Final = 50_000_000
"""No size is measured again after this."""

TOO_LONG_NS: Final = 300_000_000
"""No further size is measured after this."""


def measure(model: TokenModel, now_ns: Callable[[], int]) -> dict[int, float]:
    """c(k) of each size measured; c(1) is 1. The owner thread calls it.

    The least of up to five times each: what disturbs a measurement only adds to it. Raises
    ``EngineError`` when the model has no room for one sequence of 17 tokens.
    """
    sequence = model.open()
    best: dict[int, int] = {}
    try:
        model.evaluate(sequence, [0])  # also what only the first step pays for
        start_ns = now_ns()
        for size in _plan():
            elapsed_ns = now_ns() - start_ns
            if elapsed_ns > (ENOUGH_NS if size in best else TOO_LONG_NS) and (
                size in best or size not in FIRST_SIZES
            ):
                continue
            if size == 1 and size in best:
                # Decoding is one such step after another, and llama.cpp keeps the graph of the step
                # before: on a 3M model the first one after a longer step takes twice as long.
                model.evaluate(sequence, [0])
                model.truncate(sequence, 1)
            tokens = [n % model.num_vocab for n in range(size)]
            before_ns = now_ns()
            model.evaluate(sequence, tokens, all_logits=True)
            taken_ns = now_ns() - before_ns
            best[size] = min(taken_ns, best.get(size, taken_ns))
            model.truncate(sequence, 1)
    finally:
        model.close(sequence)
    one_ns = max(best[1], 1)
    return {size: 1.0 if size == 1 else best[size] / one_ns for size in sorted(best)}


def _plan() -> Iterator[int]:
    yield from (*FIRST_SIZES, 16, 8, 2)
    for _ in range(MAX_ROUNDS - 1):
        yield from SIZES
