"""The best token among those that are legal."""

import numpy as np
import pytest

from tests.engine.stepping import result_of
from tightloop.engine.families.constraint import Constraint, End, word
from tightloop.engine.families.legal_tokens import LegalTokens
from tightloop.engine.families.sampling import Sampler
from tightloop.engine.families.vocabulary import Vocabulary
from tightloop.engine.interface import EngineError, Sampling
from tightloop.engine.scripted_backend import IM_END, ScriptedBackend
from tightloop.engine.sequence_pool import SequencePool


def chosen(liked: list[int], rules: Constraint, *, temperature: float = 0.0) -> int:
    """The choice where logits fall in the order of ``liked``, everything else far behind."""
    pool = SequencePool(ScriptedBackend(lambda _: 0), lambda: False)
    logits = np.full(pool.num_vocab, -50, np.float32)
    for rank, token in enumerate(liked):
        logits[token] = 50 - rank
    legal = LegalTokens(pool, Vocabulary(pool))
    return result_of(legal.choose(Sampler(Sampling(temperature, seed=1)), logits, rules))


@pytest.mark.parametrize("temperature", [0.0, 0.01])
def test_the_models_own_choice_is_taken_if_it_is_legal(temperature: float) -> None:
    rules = Constraint(word(b"ab", End))
    assert chosen([ord("a"), ord("b")], rules, temperature=temperature) == ord("a")
    assert not rules.is_over
    assert chosen([ord("b")], rules) == ord("b")
    assert rules.is_over


def test_else_the_best_that_is_legal_however_unlikely() -> None:
    assert chosen([ord("x"), IM_END, ord("y")], Constraint(word(b"ab", End))) == ord("a")


def test_the_end_is_legal_where_the_answer_may_end() -> None:
    assert chosen([ord("x"), IM_END], Constraint(End())) == IM_END


def test_a_grammar_that_no_token_can_follow_is_an_error() -> None:
    class Nothing(End):
        may_stop = False

    with pytest.raises(EngineError, match="no token") as refused:
        chosen([ord("x")], Constraint(Nothing()))
    assert refused.value.code == "invalid_grammar"
