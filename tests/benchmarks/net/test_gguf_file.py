from pathlib import Path

import pytest

from benchmarks.net.gguf_file import (
    CONTROL,
    Shape,
    is_word,
    num_parameters,
    read_tokenizer,
    write_random,
)
from benchmarks.net.random_models import SHAPES, parameters, random_model, tokenizer
from tightloop.engine.llama_cpp.backend import LlamaCppBackend

TINY = Shape(width=64, layers=1, heads=2, inner=96, num_context=512)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write_random(path, "tiny", TINY, tokenizer())
    return path


def test_llama_cpp_loads_it_and_tokenises_with_it(tiny: Path) -> None:
    """Its parameters are as many as promised; text comes back whole, control tokens are known."""
    backend = LlamaCppBackend(tiny, num_context=512)
    text = "def f(x):\n    return x + 1  # ä\n"
    tokens = backend.tokenize(text, special=False)
    assert text.encode() == b"".join(map(backend.token_bytes, tokens))
    assert len(tokens) < len(text)
    assert backend.tokenize("".join(CONTROL), special=True) == [0, 1, 2]
    assert num_parameters(TINY, backend.num_vocab) == backend.num_parameters
    assert backend.metadata["general.name"] == "tiny"
    backend.shutdown()


def test_greedy_decoding_says_words_and_never_ends(tiny: Path) -> None:
    """Only the number of tokens asked for ends an answer."""
    backend = LlamaCppBackend(tiny, num_context=512)
    sequence = backend.open()
    token = int(backend.evaluate(sequence, backend.tokenize("hello", special=False)).argmax())
    for _ in range(50):
        assert backend.token_bytes(token).strip().isalpha()
        assert token not in backend.eos_tokens
        token = int(backend.evaluate(sequence, (token,)).argmax())
    backend.shutdown()


def test_the_same_arguments_give_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.gguf"
    write_random(again, "tiny", TINY, tokenizer())
    assert tiny.read_bytes() == again.read_bytes()


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGML" + bytes(100))
    with pytest.raises(ValueError, match=r"x\.gguf is not a GGUF file of version 3"):
        read_tokenizer(path)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("Ġreturn", True),
        ("x", True),
        ("Ġ", False),
        ("<|im_end|>", False),
        ("1", False),
        ("ä", False),
    ],
)
def test_only_ascii_words_are_words(token: str, expected: bool) -> None:
    assert expected is is_word(token)


@pytest.mark.parametrize(
    ("name", "millions"), [("random-3m", 3), ("random-30m", 30), ("random-500m", 500)]
)
def test_the_models_are_as_large_as_their_names(name: str, millions: float) -> None:
    """Within a tenth; rows divide into blocks of 32."""
    assert millions == pytest.approx(parameters(name) / 1e6, rel=0.1)
    shape = SHAPES[name]
    assert [shape.width % 32, shape.inner % 32] == [0, 0]


def test_a_model_is_made_once(tmp_path: Path) -> None:
    """The second call finds the file of the first."""
    path = random_model("random-3m", tmp_path)
    made_ns = path.stat().st_mtime_ns
    assert path == random_model("random-3m", tmp_path)
    assert made_ns == path.stat().st_mtime_ns
    assert [each.name for each in tmp_path.iterdir()] == ["random-3m.gguf"]
