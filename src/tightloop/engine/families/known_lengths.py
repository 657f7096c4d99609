"""How many tokens texts have, each counted once: a conversation holds the same ones turn after turn."""

from collections import OrderedDict
from collections.abc import Generator, Iterable
from typing import Final

from tightloop.engine.sequence_pool import SequencePool

MAX_CHARS: Final = 8 << 20
"""Of the texts that are remembered; their conversations hold them anyway."""


class KnownLengths:
    """Counts with the tokeniser of ``pool``; forgets the texts that were asked about longest ago."""

    def __init__(self, pool: SequencePool, *, max_chars: int = MAX_CHARS) -> None:
        self._pool = pool
        self._max_chars = max_chars
        self._known: OrderedDict[str, int] = OrderedDict()
        self._num_chars = 0

    def count(self, texts: Iterable[str]) -> Generator[None, None, int]:
        """Tokens of ``texts`` together; yields while a long one is read aside."""
        num_tokens = 0
        for text in texts:
            known = self._known.get(text)
            if known is None:
                known = len((yield from self._pool.read(text, special=False)))
                self._remember(text, known)
            else:
                self._known.move_to_end(text)
            num_tokens += known
        return num_tokens

    def _remember(self, text: str, num_tokens: int) -> None:
        if text not in self._known:  # somebody else may have counted it meanwhile
            self._known[text] = num_tokens
            self._num_chars += len(text)
        while self._num_chars > self._max_chars:
            oldest, _ = self._known.popitem(last=False)
            self._num_chars -= len(oldest)
