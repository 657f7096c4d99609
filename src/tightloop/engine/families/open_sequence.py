"""The sequence that holds an output while it grows, and how the next request comes by it.

One per parent, filed beside the parent's own under ``open_key``, replaced as it grows. The request that
follows takes it over instead of forking: hints need no more sequences than that request would have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tightloop.engine.families.warm_sequence import WarmSequence
from tightloop.engine.interface import EngineError, GenerationRequest
from tightloop.engine.sequence_pool import SequencePool


def open_key(parent_id: str) -> str:
    """What the sequence with the open output below a response is filed under."""
    return f"{parent_id}+open"


@dataclass(slots=True)
class OpenSequence(WarmSequence):
    """Holds a prompt up to somewhere in its open item.

    The first ``num_head`` tokens are the parent's, or none. ``text`` is what the others stand for,
    in UTF-8; None when that is not known. ``num_chars`` is how long the item was.
    """

    num_head: int = 0
    text: bytes | None = None
    num_chars: int = 0

    def cut(self, num_tokens: int) -> None:
        """Hold the first ``num_tokens`` tokens only. Raises ``EngineError`` as ``truncate``."""
        self.pool.truncate(self.sequence, num_tokens)
        self.text = self.text_of(self.tokens[num_tokens:], self.text)
        self.tokens = self.tokens.fork(num_tokens)  # somebody may still look at the longer list
        self.num_head = min(self.num_head, num_tokens)
        self.history = self.pass_on_history(num_tokens)

    def text_of(self, left_out: Sequence[int], text: bytes | None) -> bytes | None:
        """``text`` without the tokens ``left_out`` at its end; None if it does not end so."""
        end = b"".join(map(self.pool.token_bytes, left_out))
        if text is None or not text.endswith(end):
            return None
        return text[: len(text) - len(end)]


def take_open(
    pool: SequencePool, request: GenerationRequest, best: WarmSequence | None, num_shared: int
) -> WarmSequence | None:
    """The open sequence as the request's own, if it is ``best`` and most of it was right."""
    if request.parent is None or not isinstance(best, OpenSequence):
        return None
    key = open_key(request.parent.id)
    num_open = len(best.tokens) - best.num_head
    if pool.peek(key) is not best or 2 * (num_shared - best.num_head) < num_open:
        return None
    try:
        pool.truncate(best.sequence, num_shared)
    except EngineError:  # a model that cannot forget a part
        return None
    pool.take(key)
    tokens = best.tokens.fork(num_shared)
    return WarmSequence(pool, best.sequence, tokens, history=best.pass_on_history(num_shared))
