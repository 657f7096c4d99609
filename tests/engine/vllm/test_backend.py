"""``VllmBackend`` over the scripted host: results are those of a backend that computes each token."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.engine.collecting import ask, node_of, request
from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.interface import (
    Cancelled,
    EngineError,
    Evaluate,
    TokenBackend,
)
from tightloop.engine.scripted_backend import END_OF_TEXT, ScriptedBackend, replying
from tightloop.engine.token_engine import TokenEngine
from tightloop.engine.vllm.anchor import Anchor
from tightloop.engine.vllm.backend import FIRST_RUN, VllmBackend
from tightloop.engine.vllm.host import Sampled
from tightloop.engine.vllm.scripted_host import ScriptedHost
from tightloop.protocol.deltas import FinishReason

TOKENS = [1, 50, 60, 70, 80]


def rule(held: Sequence[int]) -> int:
    """Some next token that depends on all that is held; never one that ends an answer."""
    return (sum(held) * 7 + len(held)) % 250


@pytest.fixture
def host() -> ScriptedHost:
    return ScriptedHost(rule, max_model_len=129)


@pytest.fixture
def backend(host: ScriptedHost) -> Iterator[VllmBackend]:
    made = VllmBackend(host, num_sequences=8)
    yield made
    made.shutdown()
    assert (host.num_open, host.is_closed) == (0, True)


def decode(backend: TokenBackend, sequence: int, token: int, num: int) -> list[int]:
    """``num`` greedy tokens after ``token``."""
    made = []
    for _ in range(num):
        token = int(backend.evaluate(sequence, [token]).argmax())
        made.append(token)
    return made


def greedy(held: list[int], num: int) -> list[int]:
    made: list[int] = []
    for _ in range(num):
        made.append(rule([*held, *made]))
    return made


def best(answer: NDArray[np.float32] | EngineError) -> int:
    assert not isinstance(answer, EngineError), answer
    return int(answer.argmax())


def test_a_greedy_answer_takes_one_request_and_few_chunks(
    host: ScriptedHost, backend: VllmBackend
) -> None:
    """The prompt, then runs that double: 1 + 16 + 32 tokens in three chunks."""
    sequence = backend.open()
    first = int(backend.evaluate(sequence, TOKENS).argmax())
    expected = greedy(TOKENS, 1 + 40)
    assert expected == [first, *decode(backend, sequence, first, 40)]
    assert backend.num_tokens(sequence) == len(TOKENS) + 40
    assert [len({name for name, _ in host.prompts}), len(host.prompts)] == [1, 3]


def test_another_choice_goes_on_in_another_request(
    host: ScriptedHost, backend: VllmBackend
) -> None:
    sequence = backend.open()
    first = int(backend.evaluate(sequence, TOKENS).argmax())
    decode(backend, sequence, first, 3)
    held = [*TOKENS, *greedy(TOKENS, 3)]
    other = (rule(held) + 1) % 250
    assert rule([*held, other]) == int(backend.evaluate(sequence, [other]).argmax())
    assert backend.num_requests == 2
    assert host.prompts[-1][1] == (*held, other)


def test_a_session_that_is_continued_keeps_its_request(
    host: ScriptedHost, backend: VllmBackend
) -> None:
    """An answer that ended by itself, forked at its end and given more: the same request goes on."""
    host._next_token = lambda held: END_OF_TEXT if len(held) == 8 else rule(held)
    sequence = backend.open()
    first = int(backend.evaluate(sequence, TOKENS).argmax())
    assert decode(backend, sequence, first, 3)[-1] == END_OF_TEXT
    backend.truncate(sequence, 8)
    child = backend.fork(sequence, 8)
    held = [*TOKENS, *greedy(TOKENS, 3)]
    assert rule([*held, 3, 4]) == int(backend.evaluate(child, [3, 4]).argmax())
    assert (backend.num_requests, backend.num_anchors) == (1, 1)
    # The origin is as it was, and goes on in a request of its own.
    assert rule([*held, 9]) == int(backend.evaluate(sequence, [9]).argmax())
    assert backend.num_requests == 2


def test_a_run_that_nobody_wants_any_more_is_ended(
    host: ScriptedHost, backend: VllmBackend
) -> None:
    sequence = backend.open()
    first = int(backend.evaluate(sequence, TOKENS).argmax())
    decode(backend, sequence, first, 1)
    backend.truncate(sequence, backend.num_tokens(sequence))
    backend.close(sequence)
    assert backend.num_anchors == 0
    assert host.num_sampled <= 2 + FIRST_RUN


def test_no_more_requests_are_open_than_half_of_the_places(
    host: ScriptedHost, backend: VllmBackend
) -> None:
    sequences = [backend.open() for _ in range(6)]
    answers = backend.evaluate_many([Evaluate(sequence, TOKENS) for sequence in sequences])
    assert [rule(TOKENS)] * 6 == [best(answer) for answer in answers]
    assert backend.num_anchors == host.max_requests // 2


def test_parts_that_cannot_be_done_fail_alone(backend: VllmBackend) -> None:
    one, two = backend.open(), backend.open()
    answers = backend.evaluate_many([Evaluate(one, TOKENS), Evaluate(two, [5] * 129)])
    assert rule(TOKENS) == best(answers[0])
    assert isinstance(answers[1], EngineError)
    assert answers[1].code == "context_length_exceeded"
    assert (backend.num_tokens(one), backend.num_tokens(two)) == (5, 0)
    with pytest.raises(EngineError, match="twice"):
        backend.evaluate_many([Evaluate(one, [5]), Evaluate(one, [6])])


def test_limits_and_misuse_are_refused(backend: VllmBackend) -> None:
    sequence = backend.open()
    with pytest.raises(EngineError, match="empty"):
        backend.evaluate(sequence, [])
    with pytest.raises(EngineError, match="last token only"):
        backend.evaluate(sequence, [1, 2], all_logits=True)
    with pytest.raises(EngineError, match="cannot fork 1 tokens"):
        backend.fork(sequence, 1)
    with pytest.raises(EngineError, match="cannot keep 1 tokens"):
        backend.truncate(sequence, 1)
    backend.close(sequence)
    backend.close(sequence)
    with pytest.raises(EngineError, match="not open"):
        backend.num_tokens(sequence)
    for _ in range(8):
        backend.open()
    with pytest.raises(EngineError) as refused:
        backend.open()
    assert refused.value.code == "server_is_overloaded"


def test_the_window_can_be_filled(backend: VllmBackend) -> None:
    """Also by a run-ahead that would go beyond it."""
    sequence = backend.open()
    token = int(backend.evaluate(sequence, [7] * 120).argmax())
    decode(backend, sequence, token, 8)
    assert backend.num_tokens(sequence) == backend.context_window == 128


def test_one_cancel_stops_one_evaluation(backend: VllmBackend) -> None:
    sequence = backend.open()
    backend.cancel()
    with pytest.raises(Cancelled):
        backend.evaluate(sequence, TOKENS)
    assert backend.num_tokens(sequence) == 0
    assert rule(TOKENS) == int(backend.evaluate(sequence, TOKENS).argmax())


@pytest.mark.parametrize("num_waits", range(6))
def test_a_cancelled_step_takes_no_token_of_any_part(
    backend: VllmBackend, num_waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever in the step it comes: before, between or after the parts' answers."""
    first, second = backend.open(), backend.open()
    backend.evaluate(first, TOKENS)
    backend.evaluate(second, TOKENS)
    waits = iter(range(100))
    wait = backend._wait

    def cancelled(anchor: Anchor, index: int) -> Sampled | None:
        if next(waits) == num_waits:
            raise Cancelled
        return wait(anchor, index)

    parts = [Evaluate(first, [9]), Evaluate(second, [8, 7])]
    with monkeypatch.context() as patch:
        patch.setattr(backend, "_wait", cancelled)
        try:
            backend.evaluate_many(parts)
        except Cancelled:
            assert (backend.num_tokens(first), backend.num_tokens(second)) == (5, 5)
            backend.evaluate_many(parts)
    assert (backend.num_tokens(first), backend.num_tokens(second)) == (6, 7)
    assert rule([*TOKENS, 9, 1]) == int(backend.evaluate(first, [1]).argmax())
    assert rule([*TOKENS, 8, 7, 1]) == int(backend.evaluate(second, [1]).argmax())


def test_saved_tokens_come_back(backend: VllmBackend) -> None:
    sequence = backend.open()
    backend.evaluate(sequence, TOKENS)
    saved = backend.save(sequence)
    backend.close(sequence)
    again = backend.restore(saved)
    assert backend.num_tokens(again) == 5
    assert rule([*TOKENS, 9]) == int(backend.evaluate(again, [9]).argmax())


def test_a_dead_engine_core_is_told_and_takes_no_token() -> None:
    backend = VllmBackend(ScriptedHost(rule, fails_after=1))
    sequence = backend.open()
    token = int(backend.evaluate(sequence, TOKENS).argmax())
    with pytest.raises(EngineError, match="the engine core died"):
        backend.evaluate(sequence, [token])
    assert backend.num_tokens(sequence) == 5
    backend.shutdown()
    backend.shutdown()


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["greedy", "other", "prompt", "fork", "truncate", "many"]),
        st.integers(0, 2),
        st.integers(1, 20),
    ),
    max_size=20,
)


@settings(max_examples=40, deadline=None)
@given(OPERATIONS)
def test_any_history_gives_what_computing_each_token_gives(
    operations: list[tuple[str, int, int]],
) -> None:
    """Whatever is decoded, forked and cut: the same next token as from a backend without run-ahead."""
    host = ScriptedHost(lambda held: END_OF_TEXT if len(held) % 13 == 0 else rule(held))
    backend = VllmBackend(host, num_sequences=64)
    plain = ScriptedBackend(host._next_token, num_sequences=64, num_cells=1 << 20)
    pairs = [(backend.open(), plain.open()) for _ in range(3)]
    last = [0, 0, 0]
    for operation, which, amount in operations:
        ours, theirs = pairs[which]
        if operation == "fork":
            size = max(0, plain.num_tokens(theirs) - amount % 3)
            pairs[which] = (backend.fork(ours, size), plain.fork(theirs, size))
        elif operation == "truncate":
            size = max(0, plain.num_tokens(theirs) - amount)
            backend.truncate(ours, size)
            plain.truncate(theirs, size)
        elif operation == "many":
            parts = [Evaluate(own, [amount]) for own, _ in pairs]
            answers = backend.evaluate_many(parts)
            last = [int(plain.evaluate(other, [amount]).argmax()) for _, other in pairs]
            assert last == [best(answer) for answer in answers]
        else:
            tokens = {"greedy": [last[which]], "other": [amount], "prompt": [3] * amount}[operation]
            repeats = amount if operation == "greedy" else 1
            for _ in range(repeats):
                expected = int(plain.evaluate(theirs, tokens).argmax())
                assert expected == int(backend.evaluate(ours, tokens).argmax())
                tokens = [expected]
                last[which] = expected
        assert plain.num_tokens(theirs) == backend.num_tokens(ours)
    backend.shutdown()


async def test_a_conversation_over_the_chat_family_goes_on_in_its_request() -> None:
    """Two turns through ``TokenEngine``: the second finds the first one's tokens."""
    host = ScriptedHost(replying(b"Hello there."))
    engine = TokenEngine(lambda: VllmBackend(host), ChatFamily, name="vllm")
    await engine.start()
    try:
        asked = request("hi")
        first = await ask(engine, asked)
        parent = node_of(asked, first)
        second = await ask(engine, request("go on", name="resp_2", parent=parent))
    finally:
        await engine.close()
    assert first.text == "Hello there."
    assert second.finished.reason is FinishReason.STOP
    assert second.finished.usage.cached_tokens > 20
    assert host.is_closed
