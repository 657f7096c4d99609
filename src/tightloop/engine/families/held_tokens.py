"""The tokens that a sequence holds, in pieces that its forks share.

A turn forks what its parent holds. Copying a list of 200,000 tokens for that took 0.8 ms, and
giving up the parent's another 1.0 (figures: design/0003-engine.md).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, overload

PIECE_TOKENS: Final = 512
"""What a fork copies at most, besides a reference to each piece."""


class HeldTokens(Sequence[int]):
    """Grows at its end, can be cut and forked; a slice of it is a list of its own."""

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self._pieces: list[list[int]] = []
        """Of ``PIECE_TOKENS`` each, perhaps shared, and never changed."""
        self._tail: list[int] = list(tokens)
        self.append: Callable[[int], None] = self._tail.append
        self.extend: Callable[[Iterable[int]], None] = self._tail.extend

    def __len__(self) -> int:
        return len(self._pieces) * PIECE_TOKENS + len(self._tail)

    def __iter__(self) -> Iterator[int]:
        return iter(self[:])

    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> list[int]: ...
    def __getitem__(self, key: int | slice) -> int | list[int]:
        if isinstance(key, slice):
            start, end, step = key.indices(len(self))
            return self._part(start, end) if step == 1 else self[:][key]
        place = range(len(self))[key]
        return self._part(place, place + 1)[0]

    def _part(self, start: int, end: int) -> list[int]:
        num_before = len(self._pieces) * PIECE_TOKENS
        part: list[int] = []
        while start < min(end, num_before):
            number, at = divmod(start, PIECE_TOKENS)
            part += self._pieces[number][at : at + end - start]
            start = (number + 1) * PIECE_TOKENS
        return part + self._tail[max(0, start - num_before) : max(0, end - num_before)]

    def truncate(self, num_tokens: int) -> None:
        """Only the first ``num_tokens`` tokens are held."""
        number, at = divmod(num_tokens, PIECE_TOKENS)
        if number >= len(self._pieces):
            del self._tail[num_tokens - len(self._pieces) * PIECE_TOKENS :]
        else:
            self._tail[:] = self._pieces[number][:at]
            del self._pieces[number:]

    def fork(self, num_tokens: int) -> "HeldTokens":
        """The first ``num_tokens`` tokens, to go on by themselves."""
        tail = self._tail
        num_whole = len(tail) // PIECE_TOKENS * PIECE_TOKENS
        self._pieces += [tail[at : at + PIECE_TOKENS] for at in range(0, num_whole, PIECE_TOKENS)]
        del tail[:num_whole]
        child = HeldTokens()
        child._pieces = self._pieces[: num_tokens // PIECE_TOKENS]
        child.extend(self[len(child) : num_tokens])
        return child
