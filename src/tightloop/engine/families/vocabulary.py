"""What a constraint must know of a model's tokens."""

from collections.abc import Callable, Collection
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_MAX_TEXTS = 10_000


class Tokens(Protocol):
    """The part of a backend that is asked."""

    @property
    def num_vocab(self) -> int: ...

    @property
    def eos_tokens(self) -> frozenset[int]: ...

    @property
    def token_bytes(self) -> Callable[[int], bytes]: ...

    @property
    def tokenize(self) -> Callable[..., list[int]]: ...


class Vocabulary:
    """The bytes that tokens begin with, and which tokens are control tokens.

    Reading every token takes about a microsecond each, once, at the first refused token.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._first: NDArray[np.int16] | None = None
        self._is_control: dict[int, bool] = {}
        self._is_control_text: dict[str, bool] = {}

    def beginning_with(self, allowed: Collection[int]) -> NDArray[np.bool_]:
        """For each token whether its first byte is one of ``allowed``; empty ones never are."""
        if self._first is None:
            pieces = (self._tokens.token_bytes(n) for n in range(self._tokens.num_vocab))
            firsts = (piece[0] if piece else 256 for piece in pieces)
            self._first = np.fromiter(firsts, np.int16, self._tokens.num_vocab)
        is_allowed = np.zeros(257, np.bool_)
        is_allowed[list(allowed)] = True
        chosen: NDArray[np.bool_] = is_allowed[self._first]
        return chosen

    def is_control_text(self, text: str) -> bool:
        """Whether this text in a prompt is one control token."""
        known = self._is_control_text.get(text)
        if known is None:
            if len(self._is_control_text) >= _MAX_TEXTS:
                self._is_control_text.clear()
            tokenize = self._tokens.tokenize
            read = tokenize(text, special=True)
            known = len(read) == 1 and read != tokenize(text, special=False)
            self._is_control_text[text] = known
        return known

    def is_control(self, token: int, data: bytes) -> bool:
        """Whether a token with the bytes ``data`` is more than its text, such as a turn's end."""
        if len(data) < 3 or data[:1] not in b"<[" or data[-1:] not in b">]":
            return False
        known = self._is_control.get(token)
        if known is None:
            text = data.decode("utf-8", "replace")
            tokenize = self._tokens.tokenize
            known = tokenize(text, special=True) == [token] != tokenize(text, special=False)
            self._is_control[token] = known
        return known
