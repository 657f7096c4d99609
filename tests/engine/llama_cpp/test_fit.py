"""Memory arithmetic and thread counts."""

import pytest

from tightloop.engine.interface import EngineError
from tightloop.engine.llama_cpp import fit


def test_key_value_bytes_of_the_published_small_model() -> None:
    """30M: 8 layers, 8 heads of 64 gives 16.4 kB a token (measured with llama.cpp)."""
    assert fit.kv_bytes_per_token(8, 8, 64) == 16384


def test_what_does_not_fit_says_by_how_much() -> None:
    with pytest.raises(EngineError, match=r"big\.gguf needs about 8\.80 GB .* 4\.00 GB .*smaller"):
        fit.check_fit("big.gguf", 8_000_000_000, "choose a smaller model", available=4 * 10**9)


def test_what_fits_or_cannot_be_known_passes() -> None:
    fit.check_fit("a", 100, "", available=111)
    fit.check_fit("a", 100, "", available=None)


def test_small_models_get_one_thread_and_no_model_gets_all_cores() -> None:
    assert fit.decode_threads(3_000_000, 16) == 1
    assert fit.decode_threads(500_000_000, 16) == 15
    assert fit.decode_threads(500_000_000, 1) == 1
    assert fit.physical_cores() >= 1
