"""The token that a model likes best among those that the rules of an answer allow."""

from collections.abc import Generator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tightloop.engine.families.answer_rules import TAGS
from tightloop.engine.families.constraint import Constraint
from tightloop.engine.families.sampling import Sampler
from tightloop.engine.families.vocabulary import Vocabulary
from tightloop.engine.interface import EngineError
from tightloop.engine.sequence_pool import SequencePool
from tightloop.trace.clock import now_ns

PATIENCE_NS: Final = 5_000_000
"""A search for a legal token lets other sessions on after this."""


class LegalTokens:
    """Chooses among the tokens of one model that a ``Constraint`` lets follow."""

    def __init__(self, pool: SequencePool, vocabulary: Vocabulary) -> None:
        self._pool = pool
        self._vocabulary = vocabulary
        self._eos = pool.eos_tokens

    def choose(
        self, sampler: Sampler, logits: NDArray[np.float32], rules: Constraint
    ) -> Generator[None, None, int]:
        """A token that the rules let follow; they have gone on by it.

        The model's own choice is tried first: it is legal nearly always, and judging one token
        takes microseconds where a mask of the whole vocabulary takes a hundred times as long.
        """
        token = sampler.choose(logits)
        if self._is_legal(token, rules):
            return token
        is_possible = self._vocabulary.beginning_with(rules.next_bytes())
        is_possible[list(self._eos)] = rules.may_stop
        is_possible[token] = False
        heads: dict[bytes, bool] = {}  # many tokens begin alike: judged once
        until = now_ns() + PATIENCE_NS
        for other in sampler.ranked(logits, is_possible):
            if now_ns() > until:
                yield
                until = now_ns() + PATIENCE_NS
            if other in self._eos:
                return other
            head = self._pool.token_bytes(other)[:2]
            if head not in heads:
                heads[head] = rules.allows(head)
            if heads[head] and self._is_legal(other, rules):
                return other
        raise EngineError(
            "no token of this model can follow what the grammar demands here; it may ask for "
            "text that cannot end",
            code="invalid_grammar",
        )

    def _is_legal(self, token: int, rules: Constraint) -> bool:
        if token in self._eos:
            return rules.may_stop
        data = self._pool.token_bytes(token)
        if not data:
            return False
        if not rules.is_free and data not in TAGS and self._vocabulary.is_control(token, data):
            return False
        return rules.accept(data)
