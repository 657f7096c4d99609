"""Chooses a token from logits."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tightloop.engine.interface import Sampling

_LOOKS = (256, 8192)
_LOWEST, _FAR = -1e300, 1e100


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
        places = np.flatnonzero(is_possible)
        keys = np.maximum(self._keys(logits[places].astype(np.float64)), _LOWEST)
        num_left = len(places)
        for look in (*_LOOKS, num_left):  # a full sort is dear, and seldom needed
            size = min(look, num_left)
            if not size:
                return
            best = np.argpartition(keys, -size)[-size:]
            best = best[np.argsort(-keys[best], kind="stable")]
            yield from places[best].tolist()
            keys[best] = -np.inf
            num_left -= size

    def _keys(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._random is None or not len(logits):
            return logits
        # Logits with Gumbel noise, in order, are draws without replacement (Vieira, 2014).
        keys = logits / self._temperature + self._random.gumbel(size=len(logits))
        if self._top_p < 1:
            keys[self._nucleus(self._weights(logits)) == 0] -= _FAR
        return keys

    def _weights(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        scaled = logits.astype(np.float64) / self._temperature
        weights: NDArray[np.float64] = np.exp(scaled - scaled.max())
        return weights

    def _nucleus(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        order = np.argsort(weights)[::-1]
        sums = np.cumsum(weights[order])
        size = int(np.searchsorted(sums, self._top_p * sums[-1])) + 1
        kept = np.zeros_like(weights)
        kept[order[:size]] = weights[order[:size]]
        return kept
