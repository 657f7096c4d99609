"""Figures of paired runs: the same tasks over two paths.

Ratios are taken pair by pair and summarised by their median and quartiles, so that a machine
whose speed drifts between pairs does not pass for a difference between the paths.
"""

import statistics
from collections.abc import Iterable, Sequence

from msgspec import Struct


class Spread(Struct, frozen=True):
    """Median and quartiles of ``num`` values; ``low`` and ``high`` are the 25th and 75th percent."""

    median: float
    low: float
    high: float
    num: int


def spread(values: Iterable[float | None]) -> Spread | None:
    """Summary of the values that are known; None when none is."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    if len(known) == 1:
        return Spread(known[0], known[0], known[0], 1)
    low, median, high = statistics.quantiles(known, n=4, method="inclusive")
    return Spread(median, low, high, len(known))


def ratios(
    numerators: Sequence[float | None], denominators: Sequence[float | None]
) -> Spread | None:
    """Spread of numerator / denominator over the pairs in which both are known and positive."""
    return spread(
        above / below
        for above, below in zip(numerators, denominators, strict=True)
        if above is not None and below is not None and above > 0 and below > 0
    )
