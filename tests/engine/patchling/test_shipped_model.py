"""The shipped file, through the real backend: it is the model its card speaks of, and it repairs."""

import hashlib
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.patchling import layout
from tightloop.engine.patchling.report import FailingCase, TestReport
from tightloop.engine.patchling.search import CandidateSearch

MODEL = Path(str(resources.files("tightloop.models").joinpath("patchling.gguf")))
RESULTS = Path(__file__).parents[3] / "training" / "results.json"
FIXED = """\
def total(values, start=0):
    result = start
    for value in values:
        result += value
    return result
"""


@pytest.fixture(scope="module")
def backend() -> Iterator[LlamaCppBackend]:
    model = LlamaCppBackend(MODEL, num_threads=1)
    yield model
    model.shutdown()


def test_markers_are_single_tokens_with_the_reserved_ids(backend: LlamaCppBackend) -> None:
    assert backend.metadata["tightloop.family"] == "patchling"
    assert [backend.tokenize(text, special=True) for text in layout.SPECIAL_TOKENS] == [
        [token] for token in range(len(layout.SPECIAL_TOKENS))
    ]
    assert len(backend.tokenize("<fix>", special=False)) > 1


@pytest.mark.parametrize(
    "text", ["naïve “é” 中文 🙂", "\tif x:\r\n", "a\u00a0b  \t", "x_1 != 0xFF"]
)
def test_text_survives_the_tokenizer(backend: LlamaCppBackend, text: str) -> None:
    tokens = backend.tokenize(text, special=False)
    assert b"".join(map(backend.token_bytes, tokens)).decode() == text


@pytest.mark.parametrize(
    ("buggy", "report"),
    [
        (
            FIXED.replace("return result", "result"),
            TestReport((FailingCase("total([1, 2])", "3", "None"),)),
        ),
        (
            FIXED.replace("return result", "return reslt"),
            TestReport(
                (FailingCase("total([1, 2])", error="NameError: name 'reslt' is not defined"),),
                frozenset({4}),
            ),
        ),
    ],
)
def test_an_easy_bug_is_repaired_within_eight_candidates(
    backend: LlamaCppBackend, buggy: str, report: TestReport
) -> None:
    search = CandidateSearch(backend, buggy, report)
    found = [search.next() for _ in range(8)]
    search.close()
    assert FIXED in [candidate.function_source for candidate in found if candidate is not None]


def test_the_card_speaks_of_the_shipped_file() -> None:
    digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    assert json.loads(RESULTS.read_text())["model_sha256"] == digest
    assert digest[:16] in MODEL.with_suffix(".md").read_text()
