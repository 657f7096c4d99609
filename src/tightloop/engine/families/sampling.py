"""Chooses a token from logits."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tightloop.engine.interface import Sampling

_FIRST_LOOK = 32
_LOWEST = -1e300


class Sampler:
    """Greedy at temperature 0, else nucleus sampling; the same seed gives the same choices."""

    def __init__(self, sampling: Sampling) -> None:
        self._temperature = sampling.temperature or 0.0
        self._top_p = 1.0 if sampling.top_p is None else sampling.top_p
        self._random = np.random.default_rng(sampling.seed) if self._temperature > 0 else None

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The chosen token's id."""
        if self._random is None:
            return int(logits.argmax())
        weights = self._weights(logits)
        if self._top_p < 1:
            weights = self._nucleus(weights)
        sums = np.cumsum(weights)
        return int(np.searchsorted(sums, self._random.random() * sums[-1], side="right"))

    def ranked(self, logits: NDArray[np.float32], is_possible: NDArray[np.bool_]) -> Iterator[int]:
        """The possible tokens, each at the place where repeated choosing would have put it.

        Taking the first one that passes some test is choosing among those that pass it, with
        their probabilities in proportion. Tokens outside the nucleus come after those inside.
        """
        keys = np.where(is_possible, np.maximum(self._keys(logits, is_possible), _LOWEST), -np.inf)
        num_possible = int(is_possible.sum())
        num_seen = min(_FIRST_LOOK, num_possible)
        best = np.argpartition(keys, max(0, len(keys) - num_seen - 1))[len(keys) - num_seen :]
        yield from map(int, best[np.argsort(-keys[best], kind="stable")])
        if num_seen < num_possible:  # a full sort is dear, and seldom needed
            keys[best] = np.inf
            yield from map(int, np.argsort(-keys, kind="stable")[num_seen:num_possible])

    def _keys(
        self, logits: NDArray[np.float32], is_possible: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        wide = logits.astype(np.float64)
        if self._random is None or not is_possible.any():
            return wide
        # Logits with Gumbel noise, in order, are draws without replacement (Vieira, 2014).
        keys: NDArray[np.float64] = wide / self._temperature
        keys += self._random.gumbel(size=len(logits))
        if self._top_p < 1:
            weights = np.where(is_possible, self._weights(wide, is_possible), 0.0)
            outside = self._nucleus(weights) == 0
            keys[outside] -= 1e6
        return keys

    def _weights(
        self, logits: NDArray[np.floating], is_possible: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        scaled = logits.astype(np.float64) / self._temperature
        highest = scaled.max() if is_possible is None else scaled[is_possible].max()
        weights: NDArray[np.float64] = np.exp(np.minimum(scaled - highest, 0.0))
        return weights

    def _nucleus(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        order = np.argsort(weights)[::-1]
        sums = np.cumsum(weights[order])
        size = int(np.searchsorted(sums, self._top_p * sums[-1])) + 1
        kept = np.zeros_like(weights)
        kept[order[:size]] = weights[order[:size]]
        return kept
