"""Who gets the sequence that holds a growing output, and what it says it holds."""

import pytest

from tests.engine.collecting import request
from tightloop.engine.families.held_tokens import HeldTokens
from tightloop.engine.families.open_sequence import OpenSequence, open_key, take_open
from tightloop.engine.families.warm_sequence import WarmSequence
from tightloop.engine.interface import EngineError, GenerationRequest, Node
from tightloop.engine.scripted_backend import ScriptedBackend
from tightloop.engine.sequence_pool import SequencePool

BELOW = request("x", parent=Node("r1", None, ()))


class Unforgetting(ScriptedBackend):
    """A model whose memory cannot drop part of a sequence."""

    def truncate(self, sequence: int, num_tokens: int) -> None:
        raise EngineError("no", code="partial_truncate_unsupported")


def opened(text: bytes, num_head: int, model: ScriptedBackend) -> tuple[SequencePool, OpenSequence]:
    """A filed sequence of ``num_head`` tokens and ``text``."""
    pool = SequencePool(model, lambda: False)
    tokens = [*range(num_head), *text]
    sequence = pool.open()
    pool.evaluate(sequence, tokens)
    state = OpenSequence(pool, sequence, HeldTokens(tokens), num_head=num_head, text=text)
    pool.file(open_key("r1"), state)
    return pool, state


def test_cutting_keeps_tokens_and_text_together() -> None:
    """Also in the middle of a character."""
    pool, state = opened("one é".encode(), 3, ScriptedBackend(lambda _: 0))
    before = state.tokens
    state.cut(3 + 5)
    assert state.text == b"one \xc3"
    assert len(before) == 3 + 6, "somebody may still look at it"
    assert pool.num_tokens(state.sequence) == len(state.tokens) == 8
    assert state.text_of([1, 2], state.text) is None


def test_the_text_is_unknown_once_more_than_it_is_cut() -> None:
    _, state = opened(b"one", 3, ScriptedBackend(lambda _: 0))
    state.cut(2)
    assert state.num_head == 2
    assert state.text is None


@pytest.mark.parametrize(
    ("num_shared", "expected"), [(10, True), (7, True), (6, False), (4, False), (0, False)]
)
def test_it_is_taken_over_where_at_least_half_of_it_was_right(
    num_shared: int, expected: bool
) -> None:
    pool, state = opened(b"abcdef", 4, ScriptedBackend(lambda _: 0))
    taken = take_open(pool, BELOW, state, num_shared)
    assert (taken is not None) is expected
    assert (pool.peek(open_key("r1")) is None) is expected
    if taken is not None:
        assert list(taken.tokens) == state.tokens[:num_shared]
        assert pool.num_tokens(taken.sequence) == num_shared


@pytest.mark.parametrize(
    "asked", [request("x"), request("x", parent=Node("another", None, ()))], ids=["none", "other"]
)
def test_it_is_only_for_what_follows_its_parent(asked: GenerationRequest) -> None:
    pool, state = opened(b"abcdef", 4, ScriptedBackend(lambda _: 0))
    assert take_open(pool, asked, state, 10) is None
    assert take_open(pool, BELOW, WarmSequence(pool, 0), 10) is None
    assert take_open(pool, BELOW, None, 10) is None
    assert pool.peek(open_key("r1")) is state


def test_a_model_that_cannot_forget_leaves_it_where_it_is() -> None:
    pool, state = opened(b"abcdef", 4, Unforgetting(lambda _: 0))
    assert take_open(pool, BELOW, state, 9) is None
    assert pool.peek(open_key("r1")) is state
