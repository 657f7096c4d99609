"""How many tokens of the context sequences take, where forks share the tokens they have in common."""

from collections import Counter
from collections.abc import Callable


class CellCount:
    """Knows what was forked from what; ``num_tokens`` tells what an open sequence holds.

    A token that several sequences share is counted for one of them: the one that the others were
    forked from, and when that goes, the one that shared most of it.
    """

    def __init__(self, num_tokens: Callable[[int], int]) -> None:
        self._num_tokens = num_tokens
        self._base: dict[int, tuple[int, int]] = {}
        """The sequence that a fork shares its first tokens with, and how many."""
        self._num_forks: Counter[int] = Counter()

    def own(self, sequence: int) -> int:
        """Tokens of an open sequence that no other one is counted for."""
        _, shared = self._base.get(sequence, (0, 0))
        return self._num_tokens(sequence) - shared

    def forked(self, origin: int, child: int, num_shared: int) -> None:
        """``child`` shares its first tokens with ``origin``."""
        if num_shared:
            self._set_base(child, origin, num_shared)

    def truncated(self, sequence: int, num_tokens: int) -> None:
        """The sequence has forgotten all but its first tokens."""
        origin, shared = self._base.get(sequence, (0, 0))
        base = (sequence, num_tokens)
        if shared > num_tokens:
            # What is forgotten of the origin's tokens is still there, and its forks may have it.
            base = (origin, shared)
            self._set_base(sequence, origin, num_tokens)
        if self._num_forks[sequence]:
            self._bequeath(sequence, num_tokens, base)

    def closed(self, sequence: int) -> None:
        """The sequence is gone; what others share of it is counted for one of them."""
        base = self._base.get(sequence, (0, 0))
        if self._num_forks[sequence]:
            self._bequeath(sequence, 0, base)
        self._set_base(sequence, 0, 0)

    def _bequeath(self, sequence: int, num_kept: int, base: tuple[int, int]) -> None:
        """The forks that share more than ``num_kept`` of the sequence have one of them as base."""
        shares = {
            child: shared
            for child, (origin, shared) in self._base.items()
            if origin == sequence and shared > num_kept
        }
        if not shares:
            return
        heir = max(shares, key=lambda child: shares[child])
        for child, shared in shares.items():
            self._set_base(child, heir, shared)
        origin, num_shared = base
        self._set_base(heir, origin, min(num_shared, shares[heir]))

    def _set_base(self, sequence: int, origin: int, num_shared: int) -> None:
        before = self._base.pop(sequence, None)
        if before is not None:
            self._num_forks[before[0]] -= 1
        if num_shared:
            self._base[sequence] = origin, num_shared
            self._num_forks[origin] += 1
