"""Finds where in a text of tokens the last few tokens of another have occurred."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

LONGEST_MATCH: Final = 16
"""Tokens compared backwards from a place at most."""

NUM_CANDIDATES: Final = 8
"""Places compared in one search: pairs such as a comma and a space occur everywhere."""

_SHIFT: Final = 32


class NgramIndex:
    """Tokens, and for each pair of neighbours the places right after it, in order.

    Appending costs a constant; a search looks at ``NUM_CANDIDATES`` places at most.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._after: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def append(self, token: int) -> None:
        """``token`` is the last one now."""
        tokens = self.tokens
        if tokens:
            self._after.setdefault(tokens[-1] << _SHIFT | token, []).append(len(tokens) + 1)
        tokens.append(token)

    def extend(self, tokens: Iterable[int]) -> None:
        """``append`` for each."""
        for token in tokens:
            self.append(token)

    def truncate(self, size: int) -> None:
        """Only the first ``size`` tokens are held."""
        tokens, after = self.tokens, self._after
        while len(tokens) > size:
            token = tokens.pop()
            if tokens:
                pair = tokens[-1] << _SHIFT | token
                places = after[pair]
                places.pop()
                if not places:
                    del after[pair]

    def latest(self, tail: Sequence[int]) -> tuple[int, int]:
        """The place after the longest match with the end of ``tail``, and the match's length.

        Of equally long ones the last; (0, 0) when not even two tokens match. A match that ends at
        the very end of the index is none, as nothing follows it.
        """
        places = self._places(tail)
        end = len(places)
        if end and places[-1] == len(self.tokens):
            end -= 1
        return self._longest(places[max(0, end - NUM_CANDIDATES) : end][::-1], tail)

    def nearest(self, tail: Sequence[int], place: int) -> tuple[int, int]:
        """As ``latest``; of equally long matches the first after ``place``, then the last before."""
        places = self._places(tail)
        at = bisect_left(places, place)
        after = places[at : at + NUM_CANDIDATES // 2]
        before = places[max(0, at - NUM_CANDIDATES // 2) : at][::-1]
        return self._longest([*after, *before], tail)

    def _places(self, tail: Sequence[int]) -> Sequence[int]:
        if len(tail) < 2:
            return ()
        return self._after.get(tail[-2] << _SHIFT | tail[-1], ())

    def _longest(self, places: Sequence[int], tail: Sequence[int]) -> tuple[int, int]:
        best, length = 0, 0
        tokens, most = self.tokens, min(len(tail), LONGEST_MATCH)
        for place in places:
            size = 2
            while size < most and size < place and tokens[place - size - 1] == tail[-size - 1]:
                size += 1
            if size > length:
                best, length = place, size
        return best, length
