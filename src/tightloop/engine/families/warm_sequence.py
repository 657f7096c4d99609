"""A sequence of the backend that stays warm between responses, and evaluating into it."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tightloop.engine.crowd import Place
from tightloop.engine.drafts.ngram_index import NgramIndex
from tightloop.engine.families.held_tokens import HeldTokens
from tightloop.engine.families.prompts import Shown
from tightloop.engine.interface import EngineError, Evaluate, SavedSequence
from tightloop.engine.sequence_pool import SequencePool

CHUNK_TOKENS: Final = 512
"""Most prefill tokens in one step: what another session may have to wait for."""

COMPARED_TOKENS: Final = 4096
"""Compared at once, without looking closer while they are equal."""

Logits = NDArray[np.float32]


@dataclass(slots=True)
class WarmSequence:
    """A sequence and the tokens it holds."""

    pool: SequencePool
    sequence: int
    tokens: HeldTokens = field(default_factory=HeldTokens)
    is_parked: bool = False
    """The sequence was given back; the tokens are what it held."""
    shown: Shown | None = None
    """What of the tokens a continuation's prompt begins with; None when that is not known."""
    history: NgramIndex | None = None
    """An index of the tokens, perhaps not of all: a continuation goes on with it."""

    saved: SavedSequence | None = None
    """What the sequence held, while it is frozen."""

    @property
    def sequences(self) -> Sequence[int]:
        """What is held in the context."""
        return () if self.is_parked else (self.sequence,)

    def release(self) -> None:
        """The sequence is closed."""
        if not self.is_parked:
            self.pool.close(self.sequence)

    def freeze(self) -> int:
        """A copy in memory is all there is of the sequence; its bytes."""
        self.saved = self.pool.save(self.sequence)
        self.park()
        return len(self.saved)

    def thaw(self) -> None:
        """A sequence again. Raises ``EngineError`` when there is no room."""
        if self.saved is not None:
            self.sequence = self.pool.restore(self.saved)
            self.is_parked, self.saved = False, None

    def park(self) -> None:
        """Give the sequence back and remember what it held."""
        self.release()
        self.is_parked = True

    def pass_on_history(self, num_tokens: int) -> NgramIndex | None:
        """The index of the first ``num_tokens`` tokens for a fork, which has it from then on."""
        history, self.history = self.history, None
        if history is not None:
            history.truncate(num_tokens)
        return history

    def evaluate(
        self, place: Place, tokens: Sequence[int]
    ) -> Generator[Evaluate | None, Any, Logits]:
        """The logits after ``tokens``; where others fill the context it waits for its turn.

        What the sequence holds must be ``self.tokens``, and still is if this raises.
        """
        while True:
            try:
                if self.is_parked:
                    yield from self._unpark()
                logits: Logits = yield Evaluate(self.sequence, tokens)
            except EngineError as error:
                if error.code != "server_is_overloaded" or place.is_alone:
                    raise
            else:
                return logits
            if not place.is_oldest:
                self.park()
                yield from place.wait()
                continue
            if not self.is_parked:
                self.pool.truncate(self.sequence, len(self.tokens))
            yield None  # the younger ones make way at their next step

    def _unpark(self) -> Generator[Evaluate | None, Any, None]:
        """A sequence again that holds the tokens. Raises ``EngineError`` when there is no room."""
        self.sequence = self.pool.open()
        self.is_parked = False
        try:
            for start in range(0, len(self.tokens), CHUNK_TOKENS):
                yield Evaluate(self.sequence, self.tokens[start : start + CHUNK_TOKENS])
        except EngineError:
            self.park()  # half of it is nothing to go on from
            raise


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Number of leading tokens that are equal."""
    size = min(len(left), len(right))
    for start in range(0, size, COMPARED_TOKENS):
        end = min(start + COMPARED_TOKENS, size)
        ours, theirs = left[start:end], right[start:end]
        if ours != theirs:
            return start + int((np.asarray(ours) != np.asarray(theirs)).argmax())
    return size
