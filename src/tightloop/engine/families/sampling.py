"""Chooses a token from logits."""

import numpy as np
from numpy.typing import NDArray

from tightloop.engine.interface import Sampling


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
        scaled = logits.astype(np.float64) / self._temperature
        weights = np.exp(scaled - scaled.max())
        if self._top_p < 1:
            weights = self._nucleus(weights)
        sums = np.cumsum(weights)
        return int(np.searchsorted(sums, self._random.random() * sums[-1], side="right"))

    def _nucleus(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        order = np.argsort(weights)[::-1]
        sums = np.cumsum(weights[order])
        size = int(np.searchsorted(sums, self._top_p * sums[-1])) + 1
        kept = np.zeros_like(weights)
        kept[order[:size]] = weights[order[:size]]
        return kept
