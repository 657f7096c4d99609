"""A TokenBackend for the search: after `<fix>` it prefers the tokens of given repaired functions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tightloop.engine.patchling import layout

FIRST_BYTE = len(layout.SPECIAL_TOKENS)
FIX = layout.MARKER_TOKENS["<fix>"]


def encode(text: str) -> list[int]:
    return [FIRST_BYTE + byte for byte in text.encode()]


def echo(source: str) -> list[int]:
    """The answer that repeats a function."""
    tokens: list[int] = []
    for index, line in enumerate(layout.view_function(source).lines):
        tokens += [layout.line_token(index), *encode(line.text)]
    return [*tokens, layout.EOS]


class OracleBackend:
    """One token per byte. Earlier repairs get higher logits; everything else gets none."""

    num_vocab = FIRST_BYTE + 256
    eos_tokens = frozenset((layout.EOS,))

    def __init__(self, *repairs: str, context_window: int = 4096) -> None:
        self.answers = [echo(source) for source in repairs]
        self.context_window = context_window
        self.metadata: dict[str, str] = {}
        self.sequences: dict[int, list[int]] = {}
        self.num_opened = 0

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        assert not special
        return encode(text)

    def token_bytes(self, token: int) -> bytes:
        return bytes([token - FIRST_BYTE])

    def open(self) -> int:
        self.num_opened += 1
        self.sequences[self.num_opened] = []
        return self.num_opened

    def fork(self, sequence: int, num_tokens: int) -> int:
        child = self.open()
        self.sequences[child] = self.sequences[sequence][:num_tokens]
        return child

    def truncate(self, sequence: int, num_tokens: int) -> None:
        del self.sequences[sequence][num_tokens:]

    def close(self, sequence: int) -> None:
        del self.sequences[sequence]

    def num_tokens(self, sequence: int) -> int:
        return len(self.sequences[sequence])

    def evaluate(
        self, sequence: int, tokens: Sequence[int], *, all_logits: bool = False
    ) -> NDArray[np.float32]:
        rows = []
        for token in tokens:
            self.sequences[sequence].append(token)
            rows.append(self._logits(self.sequences[sequence]))
        return np.stack(rows) if all_logits else rows[-1]

    def cancel(self) -> None:
        raise AssertionError("not part of these tests")

    def shutdown(self) -> None:
        self.sequences.clear()

    def _logits(self, held: list[int]) -> NDArray[np.float32]:
        row = np.zeros(self.num_vocab, np.float32)
        if FIX not in held:
            return row
        done = held[held.index(FIX) + 1 :]
        for rank, answer in enumerate(self.answers):
            if answer[: len(done)] == done and len(done) < len(answer):
                row[answer[len(done)]] = max(row[answer[len(done)]], 9.0 - rank)
        return row
