"""Checking drafts on real llama.cpp: the same answer, as far as its rounding lets one tell.

A step of several tokens runs other kernels than steps of one, and their sums round differently. Where
the two best logits are nearer to each other than this rounding, either may win. So answers are
compared up to the first such place, and the rounding is measured in the same runs.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.engine.collecting import request
from tests.engine.families.driving import Said, drive, filed
from tests.engine.gguf_fixture import write_gguf
from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.interface import Node
from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.sequence_pool import SequencePool
from tightloop.protocol.items import Message, TextPart

FLAT = {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}
LEAST_COMPARED = 24
PROMPT = "the user in the then, the one and the other. " * 4


class RecordingBackend(LlamaCppBackend):
    """Remembers the logits after each token of the sequence that was evaluated last."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.rows: dict[int, NDArray[np.float32]] = {}

    def evaluate(
        self, sequence: int, tokens: Sequence[int], *, all_logits: bool = False
    ) -> NDArray[np.float32]:
        """As llama.cpp does."""
        rows = super().evaluate(sequence, tokens, all_logits=all_logits)
        size = len(tokens) if all_logits else 1
        for place, row in enumerate(rows.reshape(size, -1), self.num_tokens(sequence) - size):
            self.rows[place] = row
        return rows


def answered(
    model: Path, *, prediction: str | None, has_drafts: bool
) -> tuple[Said, list[int], dict[int, NDArray[np.float32]], Said]:
    """The answer, all tokens of it but the last, logits by place, and the answer that follows it."""
    backend = RecordingBackend(model)
    pool = SequencePool(backend, lambda: False)
    family = ChatFamily(pool, has_drafts=has_drafts, step_costs=FLAT)
    asked = replace(request(PROMPT, name="r1", max_output_tokens=64), prediction=prediction)
    said = drive(family, pool, asked)
    warm = filed(pool, "r1")
    assert pool.num_tokens(warm.sequence) == len(warm.tokens)
    tokens, rows = list(warm.tokens), dict(backend.rows)
    node = Node(
        "r1", None, (*asked.items, Message("assistant", (TextPart("output_text", said.text),)))
    )
    after = drive(family, pool, replace(asked, response_id="r2", parent=node, max_output_tokens=8))
    pool.shutdown()
    return said, tokens, rows, after


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", num_context=2048)


@pytest.mark.parametrize("is_right", [True, False])
def test_llama_cpp_answers_the_same_with_and_without_drafts(model: Path, is_right: bool) -> None:
    """And what a continuation builds on is the same."""
    plain, tokens, rows, after = answered(model, prediction=None, has_drafts=False)
    prediction = plain.text if is_right else "".join(reversed(plain.text))
    drafted, same_tokens, other_rows, same_after = answered(
        model, prediction=prediction, has_drafts=True
    )
    checked, accepted = drafted.counts["drafts"]
    assert checked > 0
    first = plain.counts["prefill"][0]
    num_compared = 0
    for place in range(first, min(len(tokens), len(same_tokens))):
        row, other = rows[place - 1], other_rows[place - 1]
        second, best = np.sort(row)[-2:]
        if best - second <= 2 * np.abs(row - other).max():
            break
        assert tokens[place] == same_tokens[place]
        num_compared += 1
    assert num_compared >= LEAST_COMPARED
    if num_compared == len(tokens) - first:
        assert plain.deltas == drafted.deltas
        assert after.counts["prefill"] == same_after.counts["prefill"]
    if is_right:
        assert accepted > 0
        assert len(drafted.steps) < len(plain.steps)
