"""Writes a tiny llama-architecture GGUF with random weights, so that tests run real llama.cpp.

Byte-level BPE: three control tokens, the 256 byte symbols, a few merges and tool-call markers.
Format: GGUF version 3 (ggml's docs/gguf.md).
"""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
ALIGNMENT = 32
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("t h", "th e", "i n", "e r", "a n", "r e", "o n", "Ġ t", "Ġt he", "l l", "u s", "us er")


def byte_symbols() -> list[str]:
    """The printable stand-in of each byte, as GPT-2 numbers them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(spare)) for b in range(256)]


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind: int, value: object) -> bytes:
    if kind == STRING:
        return _string(str(value))
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], value)


def _pair(key: str, kind: int, value: object) -> bytes:
    if isinstance(value, list):
        items = b"".join(_value(kind, item) for item in value)
        head = struct.pack("<IIQ", ARRAY, kind, len(value))
        return _string(key) + head + items
    return _string(key) + struct.pack("<I", kind) + _value(kind, value)


def _tensors(width: int, layers: int, inner: int, vocab: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(7)

    def random(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    ones = np.ones(width, np.float32)
    tensors = {"token_embd.weight": random(vocab, width), "output_norm.weight": ones}
    tensors["output.weight"] = random(vocab, width)
    for n in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"blk.{n}.{name}.weight"] = random(width, width)
        tensors[f"blk.{n}.ffn_gate.weight"] = random(inner, width)
        tensors[f"blk.{n}.ffn_up.weight"] = random(inner, width)
        tensors[f"blk.{n}.ffn_down.weight"] = random(width, inner)
        tensors[f"blk.{n}.attn_norm.weight"] = ones
        tensors[f"blk.{n}.ffn_norm.weight"] = ones
    return tensors


def write_gguf(
    path: Path,
    *,
    num_context: int = 1024,
    width: int = 64,
    layers: int = 2,
    template: str | None = CHATML,
) -> Path:
    """A loadable model file at ``path``; the same arguments give the same bytes."""
    merged = [merge.replace(" ", "") for merge in MERGES]
    tokens = [*SPECIAL, *byte_symbols(), *merged]
    inner, heads = 2 * width, 2
    pairs = [
        _pair("general.architecture", STRING, "llama"),
        _pair("general.name", STRING, "tiny-random"),
        _pair("general.alignment", U32, ALIGNMENT),
        _pair("llama.context_length", U32, num_context),
        _pair("llama.embedding_length", U32, width),
        _pair("llama.block_count", U32, layers),
        _pair("llama.feed_forward_length", U32, inner),
        _pair("llama.attention.head_count", U32, heads),
        _pair("llama.attention.head_count_kv", U32, heads),
        _pair("llama.rope.dimension_count", U32, width // heads),
        _pair("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        _pair("llama.vocab_size", U32, len(tokens)),
        _pair("tokenizer.ggml.model", STRING, "gpt2"),
        _pair("tokenizer.ggml.pre", STRING, "gpt-2"),
        _pair("tokenizer.ggml.tokens", STRING, list(tokens)),
        _pair("tokenizer.ggml.token_type", I32, [3] * 3 + [1] * (len(tokens) - 3)),
        _pair("tokenizer.ggml.merges", STRING, list(MERGES)),
        _pair("tokenizer.ggml.eos_token_id", U32, 2),
        _pair("tokenizer.ggml.bos_token_id", U32, 0),
        _pair("tokenizer.ggml.add_bos_token", BOOL, False),
    ]
    if template is not None:
        pairs.append(_pair("tokenizer.chat_template", STRING, template))
    infos, blob = b"", b""
    tensors = _tensors(width, layers, inner, len(tokens))
    for name, array in tensors.items():
        dims = array.shape[::-1]
        infos += _string(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        infos += struct.pack("<IQ", 0, len(blob))
        blob += array.tobytes() + b"\0" * (-array.nbytes % ALIGNMENT)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs) + infos
    path.write_bytes(head + b"\0" * (-len(head) % ALIGNMENT) + blob)
    return path
