"""Trains the network for a stretch of wall time: `python -m training.train --minutes 80`.

The learning rate follows elapsed time, so a run always ends decayed whatever the machine's load.
Shards are picked up as they appear: `static-*` (no report) and `executed-*` (with a real report).
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training import circuit
from training.encode import WEIGHT_CHANGED, WEIGHT_COPY, WEIGHT_FIRST, WEIGHT_PROMPT
from training.model import Muon, Network, Shape

PAD = 0
WEIGHTS = {WEIGHT_PROMPT: 0.2, WEIGHT_COPY: 1.0, WEIGHT_CHANGED: 2.0, WEIGHT_FIRST: 4.0}


class Pool:
    """Samples of one kind of shard; each is served once before any is served again."""

    def __init__(self, folder: Path, prefix: str, seed: int) -> None:
        self.folder, self.prefix, self.rng = folder, prefix, random.Random(seed)
        self.loaded: set[Path] = set()
        self.samples: list[tuple[np.ndarray, np.ndarray]] = []
        self.order: list[int] = []
        self.later: list[int] = []
        self.num_served = 0

    def refresh(self) -> None:
        for path in sorted(self.folder.glob(f"{self.prefix}-*.npz")):
            if path in self.loaded or ".partial" in path.name:
                continue
            self.loaded.add(path)
            shard = np.load(path)
            tokens, weights = shard["tokens"], shard["weights"]
            ends = np.cumsum(shard["lengths"])
            fresh = range(len(self.samples), len(self.samples) + len(ends))
            for start, end in zip(ends - shard["lengths"], ends, strict=True):
                self.samples.append((tokens[start:end], weights[start:end]))
            self.order += fresh
            self.rng.shuffle(self.order)

    def take(self, max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
        """The next sample that is short enough; longer ones wait for their time."""
        while True:
            if not self.order:
                self.order, self.later = list(range(len(self.samples))), []
                self.rng.shuffle(self.order)
            index = self.order.pop()
            if len(self.samples[index][0]) <= max_tokens:
                self.num_served += 1
                return self.samples[index]
            self.later.append(index)

    def release(self) -> None:
        """Longer samples are allowed now: put those that waited back."""
        self.order = self.later + self.order
        self.later = []


def max_length(progress: float, context: int) -> int:
    """Short samples first: they are cheap, and hold all there is to learn early on."""
    return (
        256 if progress < 0.15 else 448 if progress < 0.5 else 768 if progress < 0.75 else context
    )


def batches(
    pools: dict[str, Pool], num_tokens: int, share: float, limit: int, rng: random.Random
) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    """Batches of similar length, about `num_tokens` each, cut from one large draw."""
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    total = 0
    while total < 16 * num_tokens:
        executed = pools["executed"]
        is_executed = executed.num_served < 3 * len(executed.samples) and rng.random() < share
        sample = pools["executed" if is_executed else "static"].take(limit)
        drawn.append(sample)
        total += len(sample[0])
    drawn.sort(key=lambda sample: len(sample[0]) + rng.random())
    groups: list[list[tuple[np.ndarray, np.ndarray]]] = [[]]
    for sample in drawn:
        if groups[-1] and (len(groups[-1]) + 1) * len(sample[0]) > num_tokens:
            groups.append([])
        groups[-1].append(sample)
    rng.shuffle(groups)
    yield from groups


def collate(group: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Tokens and weight classes, padded to a multiple of 16; class 255 is padding."""
    length = -(-max(len(tokens) for tokens, _ in group) // 16) * 16
    tokens = np.full((len(group), length), PAD, np.int64)
    classes = np.full((len(group), length), 255, np.uint8)
    for row, (sample, weights) in enumerate(group):
        tokens[row, : len(sample)] = sample
        classes[row, : len(weights)] = weights
    return torch.from_numpy(tokens), torch.from_numpy(classes)


def loss_of(
    network: Network, hidden: Tensor, tokens: Tensor, classes: Tensor, prompt_share: float
) -> tuple[Tensor, float, float]:
    """Weighted loss, and the plain mean losses on copied and on first changed tokens, in nats."""
    target, kind = tokens[:, 1:].reshape(-1), classes[:, 1:].reshape(-1)
    states = hidden[:, :-1].reshape(-1, hidden.shape[-1])
    is_prompt = (kind == WEIGHT_PROMPT) & (
        torch.rand(kind.shape, device=kind.device) < prompt_share
    )
    chosen = torch.nonzero(((kind != WEIGHT_PROMPT) & (kind != 255)) | is_prompt)[:, 0]
    kind = kind[chosen]
    loss = F.cross_entropy(network.logits(states[chosen]).float(), target[chosen], reduction="none")
    weights = torch.zeros_like(loss)
    for name, weight in WEIGHTS.items():
        weights[kind == name] = weight
    plain = loss.detach()
    first, copied = plain[kind == WEIGHT_FIRST], plain[kind == WEIGHT_COPY]
    first_loss = float(first.mean()) if len(first) else math.nan
    return (loss * weights).sum() / weights.sum(), float(copied.mean()), first_loss


def save(network: Network, path: Path, state: dict[str, float]) -> None:
    partial = path.with_suffix(".partial")
    torch.save(
        {"shape": asdict(network.shape), "state": network.state_dict(), "run": state}, partial
    )
    partial.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("build/training"))
    parser.add_argument("--out", type=Path, default=None, help="folder of checkpoints")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-tokens", type=int, default=None)
    parser.add_argument("--executed-share", type=float, default=0.5)
    parser.add_argument("--muon-lr", type=float, default=0.005)
    parser.add_argument("--adam-lr", type=float, default=1e-3)
    parser.add_argument("--init", type=Path, default=None, help="start from this checkpoint")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    out = args.out or args.data / "run"
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if has_gpu else "cpu")
    batch_tokens = args.batch_tokens or (65_536 if has_gpu else 3_072)
    rng = random.Random(args.seed)

    network = Network(Shape())
    if args.init is not None:
        network.load_state_dict(torch.load(args.init, map_location=device)["state"])
    else:
        circuit.install(network, args.seed)
    network = network.to(device)
    matrices = [p for name, p in network.blocks.named_parameters() if p.ndim == 2]
    others = [p for p in network.parameters() if all(p is not m for m in matrices)]
    muon = Muon(matrices, args.muon_lr)
    adam = torch.optim.AdamW(others, lr=args.adam_lr, betas=(0.9, 0.95), weight_decay=0.0)
    compiled = torch.compile(network, dynamic=True)
    pools = {name: Pool(args.data / "shards", name, args.seed) for name in ("static", "executed")}
    print(
        f"{network.num_parameters} parameters on {device.type}, batches of {batch_tokens} tokens",
        flush=True,
    )

    started = saved = time.monotonic()
    budget_s = args.minutes * 60
    step, seen, first_sum, first_count, limit = 0, 0, 0.0, 0, 0
    loss_sum = copied_sum = 0.0
    while (elapsed := time.monotonic() - started) < budget_s:
        for pool in pools.values():
            pool.refresh()
        new_limit = max_length(elapsed / budget_s, network.shape.context)
        if new_limit > limit:
            limit = new_limit
            for pool in pools.values():
                pool.release()
        for group in batches(pools, batch_tokens, args.executed_share, limit, rng):
            progress = (time.monotonic() - started) / budget_s
            if progress >= 1:
                break
            rate = min(1.0, (step + 1) / 40) * max(0.01, min(1.0, (1 - progress) / 0.85))
            for optimizer, base in ((muon, args.muon_lr), (adam, args.adam_lr)):
                for parameters in optimizer.param_groups:
                    parameters["lr"] = base * rate
            tokens, classes = (t.to(device, non_blocking=True) for t in collate(group))
            prompt_share = 0.3 if progress < 0.3 else 0.1
            with torch.autocast("cuda", torch.bfloat16, enabled=has_gpu):
                hidden = compiled(tokens)
                loss, copied, first = loss_of(network, hidden, tokens, classes, prompt_share)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(others, 1.0)
            muon.step()
            adam.step()
            network.zero_grad(set_to_none=True)
            step, seen = step + 1, seen + sum(len(t) for t, _ in group)
            loss_sum += float(loss.detach())
            copied_sum += copied
            if not math.isnan(first):
                first_sum, first_count = first_sum + first, first_count + 1
            now = time.monotonic()
            if step % 50 == 0:
                print(json.dumps({
                    "step": step, "minutes": round((now - started) / 60, 2), "tokens": seen,
                    "loss": round(loss_sum / 50, 4), "copied": round(copied_sum / 50, 3), "first": round(first_sum / max(1, first_count), 3),
                    "rate": round(rate, 3), "limit": limit,
                    "pools": {n: [p.num_served, len(p.samples)] for n, p in pools.items()},
                }), flush=True)  # fmt: skip
                loss_sum, copied_sum, first_sum, first_count = 0.0, 0.0, 0.0, 0
            if now - saved > 240:
                saved = now
                save(
                    network,
                    out / "latest.pt",
                    {"step": step, "tokens": seen, "minutes": (now - started) / 60},
                )
    minutes = (time.monotonic() - started) / 60
    save(
        network,
        out / "final.pt",
        {"step": step, "tokens": seen, "minutes": minutes, "seed": args.seed},
    )
    print(f"done: {step} steps, {seen} tokens, {minutes:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
