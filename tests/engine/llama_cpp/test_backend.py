"""The contract of ``TokenBackend``, on real llama.cpp with a random-weight model."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.gguf_fixture import write_gguf
from tightloop.engine.interface import Cancelled, EngineError
from tightloop.engine.llama_cpp.backend import (
    BATCH_TOKENS,
    SHORT_TOKENS,
    TILE_TOKENS,
    UNIT_TOKENS,
    LlamaCppBackend,
    batch_sizes,
)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppBackend]:
    path = write_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")
    model = LlamaCppBackend(path, num_sequences=6, num_context=2048)
    yield model
    model.shutdown()


@pytest.fixture
def sequence(backend: LlamaCppBackend) -> Iterator[int]:
    opened = backend.open()
    yield opened
    backend.close(opened)


def some_tokens(count: int, seed: int = 0) -> list[int]:
    return [int(t) for t in np.random.default_rng(seed).integers(3, 250, count)]


def test_vocabulary_and_metadata(backend: LlamaCppBackend) -> None:
    assert backend.metadata["general.name"] == "tiny-random"
    assert backend.metadata["tokenizer.chat_template"].startswith("{% for m in messages")
    assert frozenset({0, 2}) == backend.eos_tokens
    assert backend.context_window == 1024
    assert backend.num_threads == 1


def test_tokens_of_any_text_give_back_its_bytes(backend: LlamaCppBackend) -> None:
    text = "<|im_start|>user\nthe then héllo 日本 \U0001f600\r\n\t<|im_end|>" * 30
    tokens = backend.tokenize(text, special=True)
    assert b"".join(map(backend.token_bytes, tokens)) == text.encode()
    assert tokens[0] == 1
    assert backend.tokenize("<|im_start|>", special=False)[0] != 1
    assert backend.tokenize("", special=True) == []


def test_other_threads_tokenise_while_the_owner_evaluates(
    backend: LlamaCppBackend, sequence: int
) -> None:
    texts = [f"a long text, number {n}, with <|im_end|> in it. " * 200 for n in range(4)]
    expected = [backend.tokenize(text, special=True) for text in texts]
    with ThreadPoolExecutor(4) as readers:
        found = [readers.submit(backend.tokenize, text, special=True) for text in texts * 4]
        for token in some_tokens(20):
            backend.evaluate(sequence, [token])
        assert [future.result() for future in found] == expected * 4


def test_a_token_outside_the_vocabulary_is_named(backend: LlamaCppBackend) -> None:
    with pytest.raises(EngineError, match="token 99999"):
        backend.token_bytes(99999)


def test_chunked_prefill_agrees_with_one_shot(backend: LlamaCppBackend, sequence: int) -> None:
    tokens = some_tokens(700)
    whole = backend.evaluate(sequence, tokens)
    other = backend.open()
    for start in range(0, 700, 50):
        pieces = backend.evaluate(other, tokens[start : start + 50])
    assert whole.argmax() == pieces.argmax()
    assert np.allclose(whole, pieces, atol=0.1)
    assert backend.num_tokens(other) == 700
    backend.close(other)


@given(st.integers(1, 3000))
def test_no_unit_but_an_only_one_is_short_unless_it_is_tiny(num_tokens: int) -> None:
    sizes = batch_sizes(num_tokens)
    assert sum(sizes) == num_tokens
    assert max(sizes) <= BATCH_TOKENS
    if num_tokens >= TILE_TOKENS:
        ends = {size % UNIT_TOKENS for size in sizes}
        assert not any(SHORT_TOKENS <= end < TILE_TOKENS for end in ends)


def test_all_logits_has_a_row_per_token(backend: LlamaCppBackend, sequence: int) -> None:
    tokens = some_tokens(600)
    rows = backend.evaluate(sequence, tokens, all_logits=True)
    assert rows.shape == (600, backend.num_vocab)
    backend.truncate(sequence, 400)
    again = backend.evaluate(sequence, tokens[400:], all_logits=True)
    assert (rows[400:].argmax(axis=1) == again.argmax(axis=1)).all()
    assert backend.evaluate(sequence, [5], all_logits=True).shape == (1, backend.num_vocab)


def test_logits_are_copies(backend: LlamaCppBackend, sequence: int) -> None:
    first = backend.evaluate(sequence, [10])
    kept = first.copy()
    backend.evaluate(sequence, [20])
    assert (first == kept).all()


def test_a_fork_continues_like_its_origin(backend: LlamaCppBackend, sequence: int) -> None:
    tokens = some_tokens(100)
    backend.evaluate(sequence, tokens)
    child = backend.fork(sequence, 100)
    assert backend.evaluate(sequence, [7]).argmax() == backend.evaluate(child, [7]).argmax()
    shorter = backend.fork(sequence, 40)
    again = backend.evaluate(shorter, tokens[40:])
    fresh = backend.open()
    assert again.argmax() == backend.evaluate(fresh, tokens).argmax()
    for used in (child, shorter, fresh):
        backend.close(used)


def test_truncate_forgets_the_rest(backend: LlamaCppBackend, sequence: int) -> None:
    tokens = some_tokens(90)
    expected = backend.evaluate(sequence, tokens).argmax()
    backend.evaluate(sequence, [9, 8, 7])
    backend.truncate(sequence, 89)
    assert expected == backend.evaluate(sequence, tokens[89:]).argmax()
    with pytest.raises(EngineError, match="cannot keep 500"):
        backend.truncate(sequence, 500)


def test_a_sequence_has_the_length_the_model_was_trained_for(
    backend: LlamaCppBackend, sequence: int
) -> None:
    with pytest.raises(EngineError, match="1025 tokens do not fit") as caught:
        backend.evaluate(sequence, some_tokens(1025))
    assert caught.value.code == "context_length_exceeded"
    assert backend.num_tokens(sequence) == 0


def test_full_cells_refuse_and_keep_what_was_there(backend: LlamaCppBackend) -> None:
    first, second, third = backend.open(), backend.open(), backend.open()
    backend.evaluate(first, some_tokens(1000))
    backend.evaluate(second, some_tokens(1000))
    with pytest.raises(EngineError, match="cells") as caught:
        backend.evaluate(third, some_tokens(400))
    assert caught.value.code == "context_length_exceeded"
    held = backend.num_tokens(third)
    backend.close(first)
    backend.evaluate(third, some_tokens(400)[held:])
    assert backend.num_tokens(third) == 400
    backend.close(second)
    backend.close(third)


def test_sequences_run_out_with_a_clear_refusal(backend: LlamaCppBackend) -> None:
    opened = [backend.open() for _ in range(6)]
    with pytest.raises(EngineError, match="all 6 sequences") as caught:
        backend.open()
    assert caught.value.code == "server_is_overloaded"
    for used in opened:
        backend.close(used)
    backend.close(opened[0])


def test_cancel_before_evaluate_stops_it_once(backend: LlamaCppBackend, sequence: int) -> None:
    backend.cancel()
    with pytest.raises(Cancelled):
        backend.evaluate(sequence, [5, 6])
    assert backend.num_tokens(sequence) == 0
    backend.evaluate(sequence, [5, 6])


def test_cancel_from_another_thread_keeps_finished_units(tmp_path: Path) -> None:
    """Whatever was reached, counts and other sequences stay right."""
    path = write_gguf(tmp_path / "wide.gguf", num_context=4096, width=128, layers=4)
    model = LlamaCppBackend(path, num_context=8192, num_sequences=3)
    other = model.open()
    expected = model.evaluate(other, [5, 6, 7]).argmax()
    tokens = some_tokens(4000)
    sequence = model.open()
    started = threading.Event()

    def stop() -> None:
        started.wait()
        model.cancel()

    thread = threading.Thread(target=stop)
    thread.start()
    started.set()

    def prefill() -> None:
        for start in range(0, 4000, 500):
            model.evaluate(sequence, tokens[start : start + 500])

    with pytest.raises(Cancelled):
        prefill()
    thread.join()
    held = model.num_tokens(sequence)
    assert held < 4000
    model.evaluate(sequence, tokens[held : held + 10])
    model.truncate(other, 2)
    assert expected == model.evaluate(other, [7]).argmax()
    model.shutdown()


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no model file at .*none\.gguf"):
        LlamaCppBackend(tmp_path / "none.gguf")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(EngineError, match=r"broken\.gguf is not a model"):
        LlamaCppBackend(broken)


def test_a_number_of_threads_that_the_library_would_die_of_is_refused(tmp_path: Path) -> None:
    """With what may be chosen."""
    path = tmp_path / "model.gguf"
    write_gguf(path)
    with pytest.raises(EngineError, match="from 1 to 512"):
        LlamaCppBackend(path, num_threads=1 << 33)
