"""The contract of ``TokenBackend``, on the fake and on llama.cpp alike: it keeps the fake honest."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.gguf_fixture import write_gguf
from tightloop.engine.interface import Cancelled, EngineError, TokenBackend
from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.scripted_backend import ScriptedBackend, replying

TOKENS = [1, 50, 60, 70, 80, 90, 100, 110]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", num_context=64)


@pytest.fixture(params=["scripted", "llama.cpp"])
def backend(request: pytest.FixtureRequest, model: Path) -> Iterator[TokenBackend]:
    made: TokenBackend
    if request.param == "scripted":
        made = ScriptedBackend(
            lambda held: (sum(held) * 7) % 250, context_window=64, num_cells=256, num_sequences=3
        )
    else:
        made = LlamaCppBackend(model, num_sequences=3, num_context=256)
    yield made
    made.shutdown()


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
    sequences = [backend.open() for _ in range(3)]
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


def test_text_survives_tokens(backend: TokenBackend) -> None:
    text = "<|im_start|>héllo the \U0001f600<|im_end|>"
    tokens = backend.tokenize(text, special=True)
    assert text.encode() == b"".join(map(backend.token_bytes, tokens))
    assert tokens[-1] in backend.eos_tokens
    plain = backend.tokenize(text, special=False)
    assert len(plain) > len(tokens)
    assert text.encode() == b"".join(map(backend.token_bytes, plain))


def test_a_scripted_reply_follows_the_last_marker() -> None:
    scripted = ScriptedBackend(replying(b"ok"))
    sequence = scripted.open()
    prompt = scripted.tokenize(
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", special=True
    )
    assert scripted.evaluate(sequence, prompt).argmax() == ord("o")
    assert scripted.evaluate(sequence, b"o").argmax() == ord("k")
    assert scripted.evaluate(sequence, b"k").argmax() in scripted.eos_tokens
    assert scripted.evaluated == [(sequence, len(prompt)), (sequence, 1), (sequence, 1)]
