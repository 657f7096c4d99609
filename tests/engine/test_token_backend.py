"""The contract of ``TokenBackend``, on the fake and on llama.cpp alike: it keeps the fake honest."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.engine.gguf_fixture import write_gguf
from tightloop.engine.interface import Cancelled, EngineError, Evaluate, TokenBackend
from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.scripted_backend import ScriptedBackend

TOKENS = [1, 50, 60, 70, 80, 90, 100, 110]
NUM_SEQUENCES, WINDOW, NUM_CELLS = 6, 64, 256


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", num_context=WINDOW)


@pytest.fixture(params=["scripted", "llama.cpp"])
def backend(request: pytest.FixtureRequest, model: Path) -> Iterator[TokenBackend]:
    made: TokenBackend
    if request.param == "scripted":
        made = ScriptedBackend(
            lambda held: (sum(held) * 7) % 250,
            context_window=WINDOW,
            num_cells=NUM_CELLS,
            num_sequences=NUM_SEQUENCES,
        )
    else:
        made = LlamaCppBackend(model, num_sequences=NUM_SEQUENCES, num_context=NUM_CELLS)
    yield made
    made.shutdown()


def best(answer: NDArray[np.float32] | EngineError) -> list[int]:
    """The token with the highest logit, in each row."""
    assert not isinstance(answer, EngineError), answer
    return [int(token) for token in np.atleast_2d(answer).argmax(axis=1)]


def code(answer: NDArray[np.float32] | EngineError) -> str:
    assert isinstance(answer, EngineError)
    return answer.code


def test_forks_and_truncation_continue_like_the_origin(backend: TokenBackend) -> None:
    first = backend.open()
    expected = backend.evaluate(first, TOKENS).argmax()
    child = backend.fork(first, 5)
    assert (backend.num_tokens(first), backend.num_tokens(child)) == (8, 5)
    assert expected == backend.evaluate(child, TOKENS[5:]).argmax()
    backend.truncate(first, 3)
    assert expected == backend.evaluate(first, TOKENS[3:]).argmax()


def test_all_logits_agree_with_single_steps(backend: TokenBackend) -> None:
    rows = backend.evaluate(backend.open(), TOKENS, all_logits=True)
    assert rows.shape == (8, backend.num_vocab)
    single = backend.open()
    steps = [int(backend.evaluate(single, [token]).argmax()) for token in TOKENS]
    assert [int(row.argmax()) for row in rows] == steps


def test_limits_are_refused_with_codes(backend: TokenBackend) -> None:
    sequences = [backend.open() for _ in range(NUM_SEQUENCES)]
    with pytest.raises(EngineError) as none_free:
        backend.open()
    assert none_free.value.code == "server_is_overloaded"
    with pytest.raises(EngineError) as too_long:
        backend.evaluate(sequences[0], [50] * 65)
    assert too_long.value.code == "context_length_exceeded"
    assert backend.num_tokens(sequences[0]) == 0
    with pytest.raises(EngineError, match="cannot keep 1 tokens"):
        backend.truncate(sequences[0], 1)
    backend.close(sequences[0])
    backend.close(sequences[0])
    assert backend.num_tokens(backend.open()) == 0


def test_one_cancel_stops_one_evaluation(backend: TokenBackend) -> None:
    sequence = backend.open()
    backend.cancel()
    with pytest.raises(Cancelled):
        backend.evaluate(sequence, TOKENS)
    backend.evaluate(sequence, TOKENS)
    assert backend.num_tokens(sequence) == 8
    backend.cancel()
    with pytest.raises(Cancelled):
        backend.evaluate(sequence, [5])
    backend.evaluate(sequence, [5])
    assert backend.num_tokens(sequence) == 9


def test_text_survives_tokens(backend: TokenBackend) -> None:
    text = "<|im_start|>héllo the \U0001f600<|im_end|>"
    tokens = backend.tokenize(text, special=True)
    assert text.encode() == b"".join(map(backend.token_bytes, tokens))
    assert tokens[-1] in backend.eos_tokens
    plain = backend.tokenize(text, special=False)
    assert len(plain) > len(tokens)
    assert text.encode() == b"".join(map(backend.token_bytes, plain))


def test_one_step_of_many_sequences_says_what_each_alone_would(backend: TokenBackend) -> None:
    """One token, a draft with all logits, and a longer piece."""
    heads = [[9], [8, 7], []]
    parts = [([20], False), (TOKENS, True), (TOKENS * 4, False)]
    expected = []
    for head, (tokens, all_logits) in zip(heads, parts, strict=True):
        sequence = backend.open()
        if head:
            backend.evaluate(sequence, head)
        expected.append(best(backend.evaluate(sequence, tokens, all_logits=all_logits)))
        backend.close(sequence)
    sequences = [backend.open() for _ in heads]
    for sequence, head in zip(sequences, heads, strict=True):
        if head:
            backend.evaluate(sequence, head)
    answers = backend.evaluate_many(
        [Evaluate(sequence, *part) for sequence, part in zip(sequences, parts, strict=True)]
    )
    assert expected == [best(answer) for answer in answers]
    assert [backend.num_tokens(sequence) for sequence in sequences] == [2, 10, 32]
    assert backend.evaluate_many([]) == []


def test_answers_of_many_are_copies(backend: TokenBackend) -> None:
    first, second = backend.open(), backend.open()
    parts = [Evaluate(first, [5]), Evaluate(second, [6, 7], all_logits=True)]
    answers = backend.evaluate_many(parts)
    before = [np.array(answer) for answer in answers]
    backend.evaluate_many([Evaluate(first, [7]), Evaluate(second, [8])])
    for kept, answer in zip(before, answers, strict=True):
        assert (kept == answer).all()


def test_forks_may_share_a_step(backend: TokenBackend) -> None:
    origin = backend.open()
    backend.evaluate(origin, TOKENS)
    child = backend.fork(origin, 8)
    answers = backend.evaluate_many([Evaluate(origin, [3]), Evaluate(child, [4])])
    other = backend.open()
    assert best(answers[0]) == best(backend.evaluate(other, [*TOKENS, 3]))
    backend.truncate(other, 8)
    assert best(answers[1]) == best(backend.evaluate(other, [4]))


def test_parts_that_cannot_be_done_fail_alone(backend: TokenBackend) -> None:
    """Empty, closed or longer than the window: each has its own answer, the rest go on."""
    one, two, closed = backend.open(), backend.open(), backend.open()
    backend.close(closed)
    answers = backend.evaluate_many(
        [Evaluate(one, [5]), Evaluate(two, [5] * 65), Evaluate(closed, [5])]
    )
    assert best(answers[0]) == best(backend.evaluate(backend.open(), [5]))
    assert code(answers[1]) == "context_length_exceeded"
    assert code(answers[2]) == "server_error"
    assert (backend.num_tokens(one), backend.num_tokens(two)) == (1, 0)
    assert code(backend.evaluate_many([Evaluate(two, [])])[0]) == "server_error"


def test_a_sequence_occurs_once_in_a_step(backend: TokenBackend) -> None:
    sequence = backend.open()
    with pytest.raises(EngineError, match="twice"):
        backend.evaluate_many([Evaluate(sequence, [5]), Evaluate(sequence, [6])])
    assert backend.num_tokens(sequence) == 0


def nearly_full(backend: TokenBackend) -> list[int]:
    """Four sequences that leave 16 cells."""
    sequences = [backend.open() for _ in range(4)]
    for sequence in sequences:
        backend.evaluate(sequence, [5] * 60)
    return sequences


def test_the_earlier_parts_get_the_last_cells(backend: TokenBackend) -> None:
    """And what is small enough still goes on behind one that does not fit."""
    full = nearly_full(backend)
    first, second = backend.open(), backend.open()
    answers = backend.evaluate_many(
        [Evaluate(first, [6] * 10), Evaluate(second, [6] * 10), Evaluate(full[0], [6] * 3)]
    )
    assert len(best(answers[0])) == len(best(answers[2])) == 1
    assert code(answers[1]) == "context_length_exceeded"
    assert [backend.num_tokens(s) for s in (first, second, full[0])] == [10, 0, 63]


def test_one_cancel_stops_one_step_of_many(backend: TokenBackend) -> None:
    first, second = backend.open(), backend.open()
    parts = [Evaluate(first, TOKENS), Evaluate(second, TOKENS)]
    backend.cancel()
    with pytest.raises(Cancelled):
        backend.evaluate_many(parts)
    for sequence in (first, second):
        backend.truncate(sequence, 0)
    answers = backend.evaluate_many(parts)
    assert best(answers[0]) == best(answers[1])
    assert [backend.num_tokens(sequence) for sequence in (first, second)] == [8, 8]


def test_what_was_saved_goes_on_where_it_was(backend: TokenBackend) -> None:
    """Also after the original has gone on, has been closed, and twice over."""
    origin = backend.open()
    backend.evaluate(origin, TOKENS)
    saved = backend.save(origin)
    expected = best(backend.evaluate(origin, [30, 31], all_logits=True))
    backend.close(origin)
    for _ in range(2):
        again = backend.restore(saved)
        assert backend.num_tokens(again) == 8
        assert expected == best(backend.evaluate(again, [30, 31], all_logits=True))
    assert len(saved) >= 8 * backend.bytes_per_token


def test_restoring_needs_a_sequence(backend: TokenBackend) -> None:
    origin = backend.open()
    backend.evaluate(origin, TOKENS)
    saved = backend.save(origin)
    for _ in range(NUM_SEQUENCES - 1):
        backend.open()
    with pytest.raises(EngineError) as refused:
        backend.restore(saved)
    assert refused.value.code == "server_is_overloaded"


def test_restoring_needs_cells_and_takes_nothing_without(backend: TokenBackend) -> None:
    full = nearly_full(backend)
    saved = backend.save(full[0])
    for _ in range(NUM_SEQUENCES):  # a sequence that was lost each time would be missed
        with pytest.raises(EngineError) as refused:
            backend.restore(saved)
        assert refused.value.code == "context_length_exceeded"
    backend.close(full[1])
    assert backend.num_tokens(backend.restore(saved)) == 60


def test_step_costs_begin_with_one(backend: TokenBackend) -> None:
    """Measured on a sequence that is given back; remembered."""
    costs = backend.step_costs()
    assert costs[1] == 1.0
    assert {1, 4} <= set(costs) <= {1, 2, 4, 8, 16}
    assert all(cost > 0 for cost in costs.values())
    assert costs == backend.step_costs()
    assert len({backend.open() for _ in range(NUM_SEQUENCES)}) == NUM_SEQUENCES


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.lists(
            st.lists(st.integers(3, 200), min_size=1, max_size=5),
            min_size=3,
            max_size=3,
        ),
        max_size=4,
    )
)
def test_counts_follow_any_mixture(backend: TokenBackend, steps: list[list[list[int]]]) -> None:
    """However steps are mixed, each sequence holds its own tokens and goes on by them."""
    sequences = [backend.open() for _ in range(3)]
    held: list[list[int]] = [[] for _ in sequences]
    answers: list[NDArray[np.float32] | EngineError] = []
    for step in steps:
        answers = backend.evaluate_many(
            [Evaluate(sequence, part) for sequence, part in zip(sequences, step, strict=True)]
        )
        for tokens, part in zip(held, step, strict=True):
            tokens += part
    assert [len(tokens) for tokens in held] == [backend.num_tokens(s) for s in sequences]
    alone = backend.open()
    for tokens, answer in zip(held, answers, strict=False):
        logits = backend.evaluate(alone, tokens)
        assert not isinstance(answer, EngineError)
        assert np.allclose(logits, answer, atol=0.1)
        backend.truncate(alone, 0)
    for sequence in (*sequences, alone):
        backend.close(sequence)
