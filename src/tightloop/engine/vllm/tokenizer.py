"""The tokeniser of a Hugging Face model directory, as a ``Tokenizer``. Needs ``transformers``."""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from tightloop.engine.interface import EngineError

SPACE_MARK: Final = "\u2581"
"""How SentencePiece vocabularies write a space."""


class HuggingFaceTokenizer:
    """Loaded from ``model``, a directory or the name of a model that is in the local cache."""

    def __init__(self, model: str) -> None:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise EngineError(
                f"{model} has no tokeniser that can be loaded: {error}", code="model_not_found"
            ) from error
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise EngineError(
                f"{model} has a tokeniser without a fast version (tokenizer.json)",
                code="model_not_found",
            )
        self._tokenizer = tokenizer
        self._backend = backend
        self._is_byte_level = _has_step(json.loads(backend.to_str())["decoder"], "ByteLevel")
        self._bytes = _byte_of_character()
        self._control = {
            int(token): str(added.content)
            for token, added in tokenizer.added_tokens_decoder.items()
        }
        self._pieces: dict[int, bytes] = {}
        self.eos_tokens = _eos_tokens(model, tokenizer)
        self.metadata = _metadata(model, tokenizer)

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of ``text``, nothing added; ``special`` recognises control tokens in it."""
        if special or not any(name in text for name in self._control.values()):
            return list(self._backend.encode(text, add_special_tokens=False).ids)
        # The library's own switch for this is a state that all threads share: cut instead.
        ids: list[int] = []
        for part in _cut(text, self._control.values()):
            ids += self._backend.encode(part, add_special_tokens=False).ids
        return ids

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token; a control token's name."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read(token)
        return piece

    def _read(self, token: int) -> bytes:
        if token in self._control:
            return self._control[token].encode()
        text = self._backend.id_to_token(token)
        if text is None:
            return b""  # vocabularies are padded
        if self._is_byte_level:
            return bytes(self._bytes[character] for character in text)
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            return bytes([int(text[3:5], 16)])
        return str(text).replace(SPACE_MARK, " ").encode()


def _has_step(decoder: dict[str, Any] | None, kind: str) -> bool:
    steps = [decoder or {}, *(decoder or {}).get("decoders", [])]
    return any(step.get("type") == kind for step in steps)


def _byte_of_character() -> dict[str, int]:
    """How byte-level vocabularies write bytes: printable ones as themselves, others from U+0100 on.

    Source: the byte-level pre-tokeniser of GPT-2, as published with its vocabulary.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(0x100) if byte not in printable)
    table.update({chr(0x100 + place): byte for place, byte in enumerate(others)})
    return table


def _cut(text: str, names: Iterable[str]) -> list[str]:
    """Pieces of ``text`` in none of which a control token's name stands whole."""
    found = re.compile("|".join(re.escape(name) for name in names))
    pieces, start = [], 0
    while (match := found.search(text, start)) is not None:
        pieces.append(text[start : match.start() + 1])
        start = match.start() + 1
    return [*pieces, text[start:]]


def _eos_tokens(model: str, tokenizer: Any) -> frozenset[int]:
    from transformers import GenerationConfig

    found = {tokenizer.eos_token_id}
    try:
        listed = GenerationConfig.from_pretrained(model).eos_token_id
    except (OSError, ValueError):
        listed = None  # most directories of one's own have none
    found.update(listed if isinstance(listed, list) else [listed])
    return frozenset(token for token in found if token is not None)


def _metadata(model: str, tokenizer: Any) -> dict[str, str]:
    adds_bos = tokenizer.bos_token_id is not None and tokenizer("x")["input_ids"][:1] == [
        tokenizer.bos_token_id
    ]
    given = {
        "general.name": model.rstrip("/").rpartition("/")[2],
        "tokenizer.chat_template": tokenizer.chat_template,
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.add_bos_token": str(adds_bos).lower(),
    }
    return {key: str(value) for key, value in given.items() if value is not None}
