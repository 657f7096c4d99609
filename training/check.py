"""Compares a GGUF file with its checkpoint: `python -m training.check`.

Tokenizer: ids of every line of a sample of functions, and of awkward text, must be equal. Network:
share of answer positions (and of all) at which both choose the same token. Exit status 1 below the declared shares.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.patchling.layout import view_function
from training.encode import WEIGHT_PROMPT, Encoder
from training.export import load
from training.mutate import inject

AWKWARD = (
    "naïve = 'Ünïcode — “quotes” 中文 🙂'", "\tif x:\r", "a  =\t b", "   ", "x" * 200, "0xFF_00 1e-5 1234567890",
    "don't you'll we're", "\r\n\r\n", "a\u00a0b\u2003c", "<|im_end|> <fn> <L1>", "lambda *a, **k: (*a, {**k})",
)  # fmt: skip
MIN_AGREEMENT = {"1": 0.999, "7": 0.985}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("build/training"))
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--model", type=Path, default=Path("src/tightloop/models/patchling.gguf"))
    parser.add_argument("--functions", type=int, default=24)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.data / "tokenizer.json"))
    backend = LlamaCppBackend(args.model, num_threads=1)
    rows = [json.loads(row)["source"] for row in (args.data / "dev.jsonl").open()]
    lines = [line.text for row in rows for line in view_function(row).lines]
    plain = Tokenizer.from_str(tokenizer.to_str())
    differing = 0
    for text in [*AWKWARD[:-2], AWKWARD[-1], *lines]:
        ours = plain.encode(text, add_special_tokens=False).ids
        differing += ours != backend.tokenize(text, special=False)
    print(f"tokenizer: {differing} of {len(lines) + len(AWKWARD) - 1} texts differ")

    network, _ = load(args.checkpoint or args.data / "run" / "final.pt")
    encoder, rng = Encoder(tokenizer), random.Random(1)
    same = total = all_same = all_total = 0
    worst = 0.0
    for source in rows:
        injected = inject(source, rng, 1)
        sample = encoder.sample(injected[0], source, None) if injected else None
        if sample is None or not 100 < len(sample.tokens) < 512:
            continue
        tokens = sample.tokens.astype(np.int64)
        with torch.no_grad():
            expected = network.logits(network(torch.from_numpy(tokens[None])))[0].numpy()
        sequence = backend.open()
        actual = backend.evaluate(sequence, tokens.tolist(), all_logits=True)
        backend.close(sequence)
        answer = sample.weights != WEIGHT_PROMPT
        is_same = (expected.argmax(-1) == actual.argmax(-1))[:-1]
        same += int(is_same[answer[1:]].sum())
        total += int(answer.sum())
        all_same += int(is_same.sum())
        all_total += len(is_same)
        worst = max(worst, float(np.abs(expected - actual).max()))
        args.functions -= 1
        if not args.functions:
            break
    print(
        f"network: argmax agrees at {100 * same / total:.2f} % of {total} answer positions, "
        f"{100 * all_same / all_total:.2f} % of all; largest logit difference {worst:.3f}"
    )
    needed = MIN_AGREEMENT.get(backend.metadata.get("general.file_type", "7"), 0.985)
    raise SystemExit(differing > 0 or same / total < needed)


if __name__ == "__main__":
    main()
