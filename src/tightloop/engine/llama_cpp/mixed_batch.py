"""Tokens of several sequences laid out for one ``llama_decode``."""

from collections.abc import Sequence

import numpy as np

from tightloop.engine.interface import Evaluate
from tightloop.engine.llama_cpp.library import Batch


class MixedBatch:
    """Room for ``num_tokens`` tokens of sequences 0 to ``num_sequences`` - 1, filled anew each time."""

    def __init__(self, num_tokens: int, num_sequences: int) -> None:
        self._token = np.zeros(num_tokens, np.int32)
        self._pos = np.zeros(num_tokens, np.int32)
        self._num_ids = np.ones(num_tokens, np.int32)
        self._wanted = np.zeros(num_tokens, np.int8)
        self._sequences = np.arange(num_sequences, dtype=np.int32)
        self._id = np.zeros(num_tokens, np.uintp)  # pointers into _sequences
        self.batch = Batch(
            n_tokens=0,
            token=self._token.ctypes.data,
            embd=None,
            pos=self._pos.ctypes.data,
            n_seq_id=self._num_ids.ctypes.data,
            seq_id=self._id.ctypes.data,
            logits=self._wanted.ctypes.data,
        )
        self._first_id: int = self._sequences.ctypes.data
        self._id_bytes = self._sequences.itemsize

    def fill(self, parts: Sequence[Evaluate], held: Sequence[int]) -> list[int]:
        """``parts`` one after the other, behind the ``held`` tokens of each; where each begins."""
        starts = []
        start = 0
        for part, first in zip(parts, held, strict=True):
            size = len(part.tokens)
            end = start + size
            self._token[start:end] = part.tokens
            self._pos[start:end] = range(first, first + size)
            self._id[start:end] = self._first_id + part.sequence * self._id_bytes
            self._wanted[start:end] = part.all_logits
            self._wanted[end - 1] = 1
            starts.append(start)
            start = end
        self.batch.n_tokens = start
        return starts
