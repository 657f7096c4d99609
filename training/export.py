"""Writes a checkpoint as GGUF and compares it with torch: `python -m training.export`.

llama.cpp rotates neighbouring elements where training rotates halves, so the rows of the query and
key matrices are permuted; everything else is copied. The embedding is tied: no `output.weight`.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from training.model import Network, Shape

NAME = "patchling"
DESCRIPTION = (
    "Demonstration model: given a failing test and the suspect Python function, proposes a one-line "
    "repair of small synthetic bugs. Not a coding assistant."
)


def permuted(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """Rows of a query or key matrix in the order of llama.cpp's rotary embedding."""
    head = rows.reshape(num_heads, 2, -1, rows.shape[1])
    return head.swapaxes(1, 2).reshape(rows.shape)


def tensors(shape: Shape, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """GGUF tensors by name."""
    d, ff = shape.width, shape.num_hidden
    out = {"token_embd.weight": state["embedding"], "output_norm.weight": state["norm.weight"]}
    for number in range(shape.num_layers):
        ours, theirs = f"blocks.{number}.", f"blk.{number}."
        qkv, gate_up = state[ours + "qkv"], state[ours + "gate_up"]
        out[theirs + "attn_q.weight"] = permuted(qkv[:d], shape.num_heads)
        out[theirs + "attn_k.weight"] = permuted(qkv[d : 2 * d], shape.num_heads)
        out[theirs + "attn_v.weight"] = qkv[2 * d :]
        out[theirs + "attn_output.weight"] = state[ours + "out"]
        out[theirs + "ffn_gate.weight"] = gate_up[:ff]
        out[theirs + "ffn_up.weight"] = gate_up[ff:]
        out[theirs + "ffn_down.weight"] = state[ours + "down"]
        out[theirs + "attn_norm.weight"] = state[ours + "attn_norm.weight"]
        out[theirs + "ffn_norm.weight"] = state[ours + "ffn_norm.weight"]
    return out


def write(path: Path, shape: Shape, state: dict[str, np.ndarray], tokenizer: dict[str, Any],
          kind: str, provenance: dict[str, str]) -> None:  # fmt: skip
    """One GGUF file; `kind` is q8_0 or f16. Norms stay f32."""
    writer = gguf.GGUFWriter(str(path), "llama")
    types = {"q8_0": (gguf.GGMLQuantizationType.Q8_0, 7), "f16": (gguf.GGMLQuantizationType.F16, 1)}
    quantization, file_type = types[kind]
    writer.add_name(NAME)
    writer.add_license("Apache-2.0")
    writer.add_description(DESCRIPTION)
    writer.add_file_type(file_type)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.num_layers)
    writer.add_feed_forward_length(shape.num_hidden)
    writer.add_head_count(shape.num_heads)
    writer.add_head_count_kv(shape.num_heads)
    writer.add_rope_dimension_count(shape.width // shape.num_heads)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(shape.num_vocab)
    writer.add_string("tightloop.family", NAME)
    for key, value in provenance.items():
        writer.add_string(f"tightloop.{key}", value)
    vocabulary = tokenizer["model"]["vocab"]
    special = {row["content"] for row in tokenizer["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]
    )
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    for name, array in tensors(shape, state).items():
        if array.ndim == 1:
            writer.add_tensor(name, array.astype(np.float32))
        else:
            data = gguf.quants.quantize(np.ascontiguousarray(array, np.float32), quantization)
            writer.add_tensor(name, data, raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def corpus_hash(data: Path) -> str:
    """One hash over the per-distribution hashes of the manifest."""
    rows = json.loads((data / "manifest.json").read_text())
    lines = sorted(f"{row['distribution']} {row['version']} {row['sha256']}" for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def load(checkpoint: Path) -> tuple[Network, dict[str, Any]]:
    saved = torch.load(checkpoint, map_location="cpu")
    network = Network(Shape(**saved["shape"]))
    network.load_state_dict(saved["state"])
    return network.eval(), saved["run"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("build/training"))
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("src/tightloop/models/patchling.gguf"))
    parser.add_argument("--kind", choices=("q8_0", "f16"), default="q8_0")
    args = parser.parse_args()
    network, run = load(args.checkpoint or args.data / "run" / "final.pt")
    provenance = {
        "corpus_sha256": corpus_hash(args.data),
        "training": json.dumps({key: round(value, 2) for key, value in run.items()}),
        "training_seed": str(int(run.get("seed", 1))),
        "num_parameters": str(network.num_parameters),
    }
    state = {name: tensor.float().numpy() for name, tensor in network.state_dict().items()}
    tokenizer = json.loads((args.data / "tokenizer.json").read_text())
    partial = args.out.with_suffix(".partial")
    write(partial, network.shape, state, tokenizer, args.kind, provenance)
    partial.rename(args.out)
    print(
        f"{args.out}: {args.out.stat().st_size} bytes, {network.num_parameters} parameters, {run}"
    )


if __name__ == "__main__":
    main()
