"""Ratios of measured series with bootstrap intervals, the same for the same samples."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
SEED = 20261122
LEVEL = 0.95

Series = NDArray[np.float64]


class Ratio(Struct, frozen=True):
    """How many times ``over`` goes into ``of``, for the figure ``name``; ``num`` pairs or samples.

    ``low`` and ``high`` hold the middle 95 % of the bootstrap. Above 1: ``of`` is larger.
    """

    name: str
    of: str
    over: str
    median: float
    low: float
    high: float
    num: int = 0


def paired_ratio(
    name: str,
    of: str,
    over: str,
    of_samples: Sequence[float | None],
    over_samples: Sequence[float | None],
) -> Ratio:
    """The median of the ratios round by round; the two series must be of the same rounds.

    A round in which either is unknown (None) or not positive is left out. Raises ValueError when
    none remains, or when the series differ in length.
    """
    pairs = [
        above / below
        for above, below in zip(of_samples, over_samples, strict=True)
        if above is not None and below is not None and above > 0 and below > 0
    ]
    if not pairs:
        raise ValueError(f"no round has both {of!r} and {over!r} for {name!r}")
    values = np.asarray(pairs)
    rng = np.random.default_rng(SEED)
    medians = np.median(_resampled(rng, values), axis=1)
    return _ratio(name, of, over, float(np.median(values)), medians, len(pairs))


def unpaired_ratio(
    name: str, of: str, over: str, of_samples: Sequence[float], over_samples: Sequence[float]
) -> Ratio:
    """The ratio of the medians of two series that share no rounds; both resampled.

    Resamples whose denominator is not positive have no ratio and are left out. Raises ValueError when
    a series is empty or its median is not positive.
    """
    above, below = np.asarray(of_samples, dtype=float), np.asarray(over_samples, dtype=float)
    if not len(above) or not len(below):
        raise ValueError(f"no samples of {of!r} or {over!r} for {name!r}")
    if np.median(above) <= 0 or np.median(below) <= 0:
        raise ValueError(f"the median of {of!r} or {over!r} for {name!r} is not positive")
    rng = np.random.default_rng(SEED)
    tops = np.median(_resampled(rng, above), axis=1)
    bottoms = np.median(_resampled(rng, below), axis=1)
    medians = tops[bottoms > 0] / bottoms[bottoms > 0]
    ratio = float(np.median(above) / np.median(below))
    return _ratio(name, of, over, ratio, medians, min(len(above), len(below)))


def _resampled(rng: np.random.Generator, values: Series) -> Series:
    return values[rng.integers(0, len(values), size=(NUM_RESAMPLES, len(values)))]


def _ratio(name: str, of: str, over: str, median: float, medians: Series, num: int) -> Ratio:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    return Ratio(name, of, over, median, float(low), float(high), num)
