"""Static samples: any function, one to four bugs, no test report: `python -m training.samples`.

Writes numbered shards that the trainer picks up as they appear, so both may run at once.
"""

import argparse
import json
import random
import zlib
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from training.encode import Encoder, Sample
from training.mutate import inject

SHARD = 2000
MAX_TOKENS = 1024
NUM_BUGS = (1, 1, 2, 2, 3, 4)


def is_dev(source: str) -> bool:
    """One function in a hundred is kept from training, for tuning the search."""
    return zlib.crc32(source.encode()) % 50 == 0


def save(path: Path, samples: list[Sample]) -> None:
    """Write a shard under its final name only when it is complete."""
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial,
        tokens=np.concatenate([sample.tokens for sample in samples]),
        weights=np.concatenate([sample.weights for sample in samples]),
        lengths=np.array([len(sample.tokens) for sample in samples], np.int32),
    )
    partial.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("build/training"))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    encoder = Encoder(Tokenizer.from_file(str(args.data / "tokenizer.json")))
    shards = args.data / "shards"
    shards.mkdir(exist_ok=True)
    rng = random.Random(args.seed)
    batch: list[Sample] = []
    number = 0
    with (args.data / "functions.jsonl").open() as rows, (args.data / "dev.jsonl").open("w") as dev:
        for row in rows:
            source = json.loads(row)["source"]
            if is_dev(source):
                dev.write(row)
                continue
            count = min(rng.choice(NUM_BUGS), max(1, source.count("\n") // 3))
            injected = inject(source, rng, count)
            sample = encoder.sample(injected[0], source, None) if injected else None
            if sample is None or len(sample.tokens) > MAX_TOKENS:
                continue
            batch.append(sample)
            if len(batch) == SHARD:
                save(shards / f"static-{args.seed}-{number:04}.npz", batch)
                number, batch = number + 1, []
    if batch:
        save(shards / f"static-{args.seed}-{number:04}.npz", batch)


if __name__ == "__main__":
    main()
