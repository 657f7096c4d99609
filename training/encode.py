"""Encodes functions, reports and repairs as the token sequences that the model learns from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tightloop.engine.patchling import layout
from tightloop.engine.patchling.report import TestReport

WEIGHT_PROMPT, WEIGHT_COPY, WEIGHT_CHANGED, WEIGHT_FIRST = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Sample:
    """Token ids, and per token which loss weight its prediction carries (WEIGHT_*)."""

    tokens: NDArray[np.uint16]
    weights: NDArray[np.uint8]


class Encoder:
    """Encodes text with markers exactly as the run time does: markers by id, text by BPE."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def lines(self, view: layout.FunctionView) -> list[list[int]]:
        texts = [line.text for line in view.lines]
        return [e.ids for e in self.tokenizer.encode_batch(texts, add_special_tokens=False)]

    def text(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def sample(self, buggy: str, fixed: str, report: TestReport | None) -> Sample | None:
        """The training sample, or None when the two views do not pair line by line."""
        before, after = layout.view_function(buggy), layout.view_function(fixed)
        if len(before.lines) != len(after.lines) or len(before.lines) > layout.MAX_LINES:
            return None
        old, new = self.lines(before), self.lines(after)
        hits = layout.hit_lines(before, report)
        tokens = layout.prompt_tokens(report, old, hits, self.text)
        weights = [WEIGHT_PROMPT] * len(tokens)
        pending = WEIGHT_COPY
        for number, (left, right) in enumerate(zip(old, new, strict=True)):
            tokens += [layout.line_token(number), *right]
            weights.append(pending)
            pending = WEIGHT_COPY
            same = 0
            while same < min(len(left), len(right)) and left[same] == right[same]:
                same += 1
            weights.extend([WEIGHT_COPY] * same)
            if same < len(right):
                weights.extend([WEIGHT_FIRST] + [WEIGHT_CHANGED] * (len(right) - same - 1))
            elif same < len(left):  # the repair drops the end of the line: the next marker shows it
                pending = WEIGHT_FIRST
        tokens.append(layout.EOS)
        weights.append(pending)
        return Sample(np.array(tokens, np.uint16), np.array(weights, np.uint8))
