"""A ``Host`` without vLLM: the next token comes from a function. A shipped, documented fake.

It keeps the semantics of open requests to the letter (``host``), the limit on open ones included, so
that the backend can be driven through every corner without loading a model.
"""

import asyncio
from collections.abc import AsyncIterator

from tightloop.engine.interface import EngineError
from tightloop.engine.scripted_backend import NextToken, ScriptedBackend
from tightloop.engine.vllm.host import Chunk, Sampled, Tokenizer


class ByteTokenizer:
    """The tokens of ``ScriptedBackend``: bytes and three control tokens."""

    def __init__(self) -> None:
        backend = ScriptedBackend(lambda _held: 0)
        self.metadata = {"general.name": "scripted"}
        self.eos_tokens = backend.eos_tokens
        self.tokenize = backend.tokenize
        self.token_bytes = backend.token_bytes


class ScriptedHost:
    """``prompts`` records what each request held whenever it began to sample.

    ``fails_after`` is the number of tokens sampled, over all requests, before every further one
    raises.
    """

    tokenizer: Tokenizer

    def __init__(
        self,
        next_token: NextToken,
        *,
        max_model_len: int = 4097,
        max_requests: int = 8,
        fails_after: int | None = None,
    ) -> None:
        self.tokenizer = ByteTokenizer()
        self.num_vocab = 259
        self.max_model_len = max_model_len
        self.max_requests = max_requests
        self.prompts: list[tuple[str, tuple[int, ...]]] = []
        self.num_sampled = 0
        self.num_open = 0
        self.is_closed = False
        self._next_token = next_token
        self._fails_after = fails_after

    async def start(self) -> None:
        """Nothing to load."""

    async def generate(
        self, request_id: str, chunks: AsyncIterator[Chunk]
    ) -> AsyncIterator[Sampled]:
        """See ``Host.generate``. A token a step of the loop, so that requests take turns."""
        if self.num_open >= self.max_requests:
            raise EngineError(f"more than {self.max_requests} requests are open")
        self.num_open += 1
        try:
            held: list[int] = []
            num_sampled = 0
            async for chunk in chunks:
                if num_sampled:
                    held.pop()
                held.extend(chunk.tokens)
                if len(held) + chunk.max_tokens > self.max_model_len:
                    raise EngineError(f"{len(held)} tokens of prompt are too many")
                self.prompts.append((request_id, tuple(held)))
                num_sampled = 0
                while True:
                    await asyncio.sleep(0)
                    token = self._sample(held)
                    held.append(token)
                    num_sampled += 1
                    is_last = num_sampled == chunk.max_tokens or token in self.tokenizer.eos_tokens
                    yield Sampled(token, ((token, 0.0),), is_last)
                    if is_last:
                        break
        finally:
            self.num_open -= 1

    async def close(self) -> None:
        """Nothing to release."""
        self.is_closed = True

    def _sample(self, held: list[int]) -> int:
        if self._fails_after is not None and self.num_sampled >= self._fails_after:
            raise RuntimeError("the engine core died")
        self.num_sampled += 1
        return self._next_token(held)
