"""Writes GGUF files with random weights: real shapes and sizes, so real speed; the text is nonsense.

Weights are q8_0 blocks of random bytes with one scale, which nothing that reads them can tell from
trained ones. The output matrix has rows of zeros for every token but plain ASCII words, and greedy
decoding therefore chooses words only: it never ends by itself, and ``max_output_tokens`` alone
says how long an answer is. Format: GGUF version 3 (ggml's docs/gguf.md).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
FIXED_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, U32: 4, I32: 4, F32: 4, BOOL: 1, U64: 8, 11: 8, 12: 8}
ALIGNMENT: Final = 32
TYPE_F32, TYPE_Q8_0, FILE_TYPE_Q8_0 = 0, 8, 7
BLOCK: Final = 32
SCALE: Final = 0.0003
"""Of the quantised weights: bytes spread evenly over -127..127 give a standard deviation of 0.022."""

CHAT_TEMPLATE: Final = (
    "{% if tools %}<|im_start|>system\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}"
    "Tools:{% for t in tools %}\n{{ t | tojson }}{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}"
    "{% if m.role == 'tool' %}<|im_start|>tool\n{{ m.content }}<|im_end|>\n"
    "{% elif not (tools and loop.first and m.role == 'system') %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}\n<tool_call>\n{{ c.function | tojson }}\n</tool_call>"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML with tools in front; prefix-stable, as most templates are in a tool loop."""

CONTROL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True, slots=True)
class Shape:
    """A llama-architecture model without its vocabulary. All but ``layers`` divide by 32."""

    width: int
    layers: int
    heads: int
    inner: int
    num_context: int = 32768


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Byte-level BPE as GPT-2's; ``tokens`` in the order of their ids, control tokens first."""

    tokens: tuple[str, ...]
    merges: tuple[str, ...]


def read_tokenizer(path: Path) -> Tokenizer:
    """The vocabulary of a GGUF file, its control tokens replaced by ``CONTROL``.

    Those of the file are dropped. Raises ValueError when it is no GGUF 3 file with such a vocabulary.
    """
    with path.open("rb") as file:
        if file.read(4) != b"GGUF" or struct.unpack("<I", file.read(4))[0] != 3:
            raise ValueError(f"{path} is not a GGUF file of version 3")
        _, num_pairs = struct.unpack("<QQ", file.read(16))
        found: dict[str, object] = {}
        for _ in range(num_pairs):
            key = _read_string(file)
            found[key] = _read_value(file, struct.unpack("<I", file.read(4))[0])
    try:
        tokens, kinds = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
        merges = found["tokenizer.ggml.merges"]
    except KeyError as error:
        raise ValueError(f"{path} has no {error.args[0]}") from None
    assert isinstance(tokens, list)
    assert isinstance(kinds, list)
    assert isinstance(merges, list)
    plain = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 1]
    return Tokenizer((*CONTROL, *plain), tuple(merges))


def _read_string(file: BinaryIO) -> str:
    return file.read(struct.unpack("<Q", file.read(8))[0]).decode()


def _read_value(file: BinaryIO, kind: int) -> object:
    if kind == STRING:
        return _read_string(file)
    if kind == ARRAY:
        inner, length = struct.unpack("<IQ", file.read(12))
        return [_read_value(file, inner) for _ in range(length)]
    data = file.read(FIXED_SIZES[kind])
    return struct.unpack("<i", data)[0] if kind == I32 else data


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind: int, value: object) -> bytes:
    if kind == STRING:
        return _string(str(value))
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], value)


def _pair(key: str, kind: int, value: object) -> bytes:
    if isinstance(value, list):
        head = struct.pack("<IIQ", ARRAY, kind, len(value))
        return _string(key) + head + b"".join(_value(kind, item) for item in value)
    return _string(key) + struct.pack("<I", kind) + _value(kind, value)


def _pairs(name: str, shape: Shape, tokenizer: Tokenizer) -> list[bytes]:
    num_special, num_tokens = len(CONTROL), len(tokenizer.tokens)
    return [
        _pair("general.architecture", STRING, "llama"),
        _pair("general.name", STRING, name),
        _pair("general.alignment", U32, ALIGNMENT),
        _pair("general.file_type", U32, FILE_TYPE_Q8_0),
        _pair("llama.context_length", U32, shape.num_context),
        _pair("llama.embedding_length", U32, shape.width),
        _pair("llama.block_count", U32, shape.layers),
        _pair("llama.feed_forward_length", U32, shape.inner),
        _pair("llama.attention.head_count", U32, shape.heads),
        _pair("llama.attention.head_count_kv", U32, shape.heads),
        _pair("llama.rope.dimension_count", U32, shape.width // shape.heads),
        _pair("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        _pair("llama.vocab_size", U32, num_tokens),
        _pair("tokenizer.ggml.model", STRING, "gpt2"),
        _pair("tokenizer.ggml.pre", STRING, "gpt-2"),
        _pair("tokenizer.ggml.tokens", STRING, list(tokenizer.tokens)),
        _pair(
            "tokenizer.ggml.token_type",
            I32,
            [3] * num_special + [1] * (num_tokens - num_special),
        ),
        _pair("tokenizer.ggml.merges", STRING, list(tokenizer.merges)),
        _pair("tokenizer.ggml.eos_token_id", U32, 2),
        _pair("tokenizer.ggml.bos_token_id", U32, 0),
        _pair("tokenizer.ggml.add_bos_token", BOOL, False),
        _pair("tokenizer.chat_template", STRING, CHAT_TEMPLATE),
    ]


def _matrices(shape: Shape, num_tokens: int) -> Iterator[tuple[str, int, int]]:
    """Name, rows and columns of every matrix."""
    yield "token_embd.weight", num_tokens, shape.width
    yield "output.weight", num_tokens, shape.width
    for number in range(shape.layers):
        block = f"blk.{number}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"{block}{name}.weight", shape.width, shape.width
        yield f"{block}ffn_gate.weight", shape.inner, shape.width
        yield f"{block}ffn_up.weight", shape.inner, shape.width
        yield f"{block}ffn_down.weight", shape.width, shape.inner


def _norms(shape: Shape) -> Iterator[str]:
    yield "output_norm.weight"
    for number in range(shape.layers):
        yield f"blk.{number}.attn_norm.weight"
        yield f"blk.{number}.ffn_norm.weight"


def num_parameters(shape: Shape, num_tokens: int) -> int:
    """Of the whole model, both vocabulary matrices included."""
    matrices = sum(rows * columns for _, rows, columns in _matrices(shape, num_tokens))
    return matrices + shape.width * sum(1 for _ in _norms(shape))


def is_word(token: str) -> bool:
    """Whether decoding may choose the token: ASCII letters, perhaps after a blank."""
    return token.removeprefix("Ġ").isascii() and token.removeprefix("Ġ").isalpha()


def _blocks(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.uint8]:
    """q8_0: of each 32 weights a scale in 16 bits, then a byte each. Shape (rows, blocks, 34)."""
    count = columns // BLOCK
    made = np.empty((rows, count, 2 + BLOCK), np.uint8)
    made[:, :, :2] = np.frombuffer(np.float16(SCALE).tobytes(), np.uint8)
    weights = rng.integers(-127, 128, (rows, count, BLOCK), np.int8)
    made[:, :, 2:] = weights.view(np.uint8)
    return made


def write_random(path: Path, name: str, shape: Shape, tokenizer: Tokenizer, seed: int = 1) -> None:
    """The model file; the same arguments give the same bytes."""
    num_tokens = len(tokenizer.tokens)
    infos, size = [], 0
    for tensor, rows, columns in _matrices(shape, num_tokens):
        dims = struct.pack("<IQQ", 2, columns, rows)
        infos.append(_string(tensor) + dims + struct.pack("<IQ", TYPE_Q8_0, size))
        size += _padded(rows * columns // BLOCK * (2 + BLOCK))
    for tensor in _norms(shape):
        dims = struct.pack("<IQ", 1, shape.width)
        infos.append(_string(tensor) + dims + struct.pack("<IQ", TYPE_F32, size))
        size += _padded(shape.width * 4)
    pairs = _pairs(name, shape, tokenizer)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(pairs))
    head += b"".join(pairs) + b"".join(infos)
    rng = np.random.default_rng(seed)
    words = np.array([is_word(token) for token in tokenizer.tokens])
    with path.open("wb") as file:
        _put(file, head)
        for tensor, rows, columns in _matrices(shape, num_tokens):
            blocks = _blocks(rng, rows, columns)
            if tensor == "output.weight":
                blocks[~words, :, 2:] = 0
            _put(file, blocks.tobytes())
        for _ in _norms(shape):
            _put(file, np.ones(shape.width, np.float32).tobytes())


def _padded(num_bytes: int) -> int:
    return num_bytes + -num_bytes % ALIGNMENT


def _put(file: BinaryIO, data: bytes) -> None:
    file.write(data + b"\0" * (-len(data) % ALIGNMENT))
