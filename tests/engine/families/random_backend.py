"""A backend whose logits are noise: what matches a grammar here matches because it must."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tightloop.engine.scripted_backend import ScriptedBackend


class RandomBackend(ScriptedBackend):
    """Normal noise as logits; ``favoured`` bytes get ``bonus`` more, so that texts come to ends."""

    def __init__(
        self,
        seed: int,
        *,
        favoured: bytes = b'\\n"',
        bonus: float = 3.0,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(lambda _: 0, context_window=1 << 16, num_cells=1 << 17, metadata=metadata)
        self._noise = np.random.default_rng(seed)
        self._bonus = np.zeros(self.num_vocab, np.float32)
        self._bonus[list(favoured)] = bonus

    def favour(self, token: int, bonus: float) -> None:
        """``token`` gets ``bonus`` more, too."""
        self._bonus[token] = bonus

    def evaluate(
        self, sequence: int, tokens: Sequence[int], *, all_logits: bool = False
    ) -> NDArray[np.float32]:
        """As many rows of noise as are wanted."""
        shape = super().evaluate(sequence, tokens, all_logits=all_logits).shape
        noise: NDArray[np.float32] = self._noise.normal(0, 1, shape).astype(np.float32)
        return noise + self._bonus
