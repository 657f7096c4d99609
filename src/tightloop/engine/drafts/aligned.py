"""A cursor in a text that the answer is expected to repeat with changes, such as a file it edits."""

from collections.abc import Iterable, Sequence
from typing import Final

from tightloop.engine.drafts.ngram_index import LONGEST_MATCH, NgramIndex
from tightloop.engine.drafts.source import NOTHING

GAP: Final = -2
"""Stands between texts of one reference; no token is equal to it."""


class AlignedCursor:
    """Follows an answer through ``reference``, which may grow meanwhile.

    While the answer repeats the reference the cursor moves along. Where they part (the answer
    inserts, leaves out or replaces something) it looks for the last tokens of the answer in the
    reference, first after the place where it was, and goes on from there. ``is_at_start`` has it
    expect the first token at once.
    """

    def __init__(self, *, is_at_start: bool = False) -> None:
        self.expected = NOTHING
        self.run = 0
        self._reference = NgramIndex()
        self._place = 0
        self._is_on = is_at_start
        self._tail: list[int] = []

    def extend(self, tokens: Iterable[int]) -> None:
        """The reference goes on with ``tokens``; a ``GAP`` divides unrelated texts."""
        self._reference.extend(tokens)
        self._look()

    def accept(self, token: int) -> None:
        """See ``DraftSource``."""
        tail = self._tail
        tail.append(token)
        if len(tail) > 4 * LONGEST_MATCH:
            del tail[:-LONGEST_MATCH]
        if token == self.expected:
            self._place += 1
            self.run += 1
        else:
            place, self.run = self._reference.nearest(tail, self._place)
            self._is_on = self.run > 0
            if self._is_on:
                self._place = place
        self._look()

    def propose(self, num: int) -> Sequence[int]:
        """See ``DraftSource``."""
        if self.expected == NOTHING:
            return ()
        tokens = self._reference.tokens[self._place : self._place + num]
        return tokens[: tokens.index(GAP)] if GAP in tokens else tokens

    def _look(self) -> None:
        tokens = self._reference.tokens
        is_known = self._is_on and self._place < len(tokens)
        expected = tokens[self._place] if is_known else NOTHING
        self.expected = NOTHING if expected == GAP else expected
