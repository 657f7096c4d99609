"""Trains the byte-level BPE on what the model sees: `python -m training.tokenizer`.

Merges are learnt on finely cut text (operators, single digits and underscores stand alone, no
merge crosses a line), then used under the plain gpt-2 pre-tokenizer, which is what llama.cpp runs.
"""

import argparse
import json
import random
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tightloop.engine.patchling.layout import SPECIAL_TOKENS, view_function

NUM_VOCAB = 3072
PIECES = (
    r" ?(?:==|!=|<=|>=|\*\*|//|<<|>>|[-+*/%&|^]=|->|:=|\.\.\.)|\d|_|"
    r" ?[()\[\]{}:,.'\"]{1,3}| ?[A-Za-z]+| ?[^\sA-Za-z0-9_]|\s+(?!\S)|\s+"
)


def train(texts: list[str]) -> Tokenizer:
    """A tokenizer whose ids equal llama.cpp's for the same vocabulary and merges."""
    fine = Tokenizer(models.BPE())
    fine.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_VOCAB,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fine.train_from_iterator(texts, trainer)
    model = json.loads(fine.to_str())["model"]
    merges = [
        tuple(pair) if isinstance(pair, list) else tuple(pair.split(" "))
        for pair in model["merges"]
    ]
    tokenizer = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS]
    )
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("build/training"))
    parser.add_argument("--functions", type=int, default=25_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rows = (args.data / "functions.jsonl").read_text().splitlines()
    texts = []
    for row in random.Random(args.seed).sample(rows, min(args.functions, len(rows))):
        texts.extend(line.text for line in view_function(json.loads(row)["source"]).lines)
    tokenizer = train(texts)
    tokenizer.save(str(args.data / "tokenizer.json"))
    num_bytes = sum(len(text.encode()) for text in texts)
    num_tokens = sum(len(e.ids) for e in tokenizer.encode_batch(texts, add_special_tokens=False))
    print(
        f"{tokenizer.get_vocab_size()} tokens, {num_bytes / num_tokens:.2f} bytes/token, "
        f"{num_tokens / len(texts):.1f} tokens/line"
    )


if __name__ == "__main__":
    main()
