"""What ``VllmBackend`` needs of vLLM: requests that stay open and take their prompt in chunks.

The semantics are those of ``AsyncLLM.generate`` with a generator of ``StreamingInput``, read in vLLM
0.32 and checked against it by ``scripts/check_vllm.py``: every chunk samples at least one token; the
last token sampled is dropped when the next chunk comes, the ones before it have become prompt.
``vllm_host`` is the real one, ``scripted_host`` the shipped fake.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Chunk:
    """More of a request's prompt, then up to ``max_tokens`` tokens (at least 1) are sampled."""

    tokens: tuple[int, ...]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Sampled:
    """One greedily sampled token. ``top``: the most likely ones with their log probabilities.

    ``is_last``: the request rests until the next chunk comes.
    """

    token: int
    top: tuple[tuple[int, float], ...]
    is_last: bool


class Tokenizer(Protocol):
    """Text to token ids and back, for the model that the host serves."""

    metadata: dict[str, str]
    """Under the keys of GGUF files: chat template, ids of control tokens."""
    eos_tokens: frozenset[int]

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """See ``TokenBackend.tokenize``."""

    def token_bytes(self, token: int) -> bytes:
        """See ``TokenBackend.token_bytes``."""


class Host(Protocol):
    """A model behind vLLM's interface. Methods are called on the loop that ``start`` ran on."""

    tokenizer: Tokenizer
    num_vocab: int
    """Of the model: vocabularies are padded, so a tokeniser may know fewer."""
    max_model_len: int
    """Tokens of prompt and output together."""
    max_requests: int
    """Requests that may be open at a time; one that rests counts."""

    async def start(self) -> None:
        """Load the model. Raises ``EngineError`` with a remedy."""

    def generate(self, request_id: str, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Sampled]:
        """An open request; it ends when ``chunks`` does or the iterator is closed."""

    async def close(self) -> None:
        """Release the model. May be called twice."""
