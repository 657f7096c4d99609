"""A copying circuit for the initial weights: induction heads, set by hand.

A repair is a copy with a few changes, and a network this small spends a large part of an hour's budget
on discovering copying. So the first two attention layers start with it: heads of the first write the
previous tokens into slots of the residual stream; heads of the second attend to the position whose
previous tokens equal the current ones, and hand on the token found there. All of it stays trainable.
"""

import torch
from torch import Tensor

from training.model import Network

SCALE = 0.05  # size of one element of an embedding
TAG = 0  # residual dimension that is the same for every token
TAG_VALUE = 0.4
SIGNATURE = 32  # elements of an embedding by which tokens are recognised
PEAK = 12.0  # how sharply the first layer attends to one distance


def install(network: Network, seed: int = 0) -> None:
    """Overwrite embedding and the first two layers' attention of a fresh network.

    Needs three heads of 64: each recognises 32 elements in its 16 slowest rotations.
    """
    shape = network.shape
    width, num_heads = shape.width, shape.num_heads
    size = width // num_heads
    half = size // 2
    body = width - num_heads * SIGNATURE
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        network.embedding.zero_()
        noise = torch.randn(shape.num_vocab, body - 1, generator=generator)
        network.embedding[:, 1:body] = noise * SCALE
        network.embedding[:, TAG] = TAG_VALUE
        network.norm.weight.fill_(1.6)
        first, second = network.blocks[0], network.blocks[1]
        first.qkv.copy_(_previous_tokens(first.qkv, num_heads, half, width, shape.rope_base))
        second.qkv.copy_(_matching(second.qkv, num_heads, half, width, body, generator))
        for head in range(num_heads):
            start = head * size
            slot = body + head * SIGNATURE
            for element in range(SIGNATURE):
                first.out[slot + element, start + element] = 0.0455
                source = 1 + head * SIGNATURE + element
                if source < body:
                    second.out[source, start + element] = 0.172


def _previous_tokens(qkv: Tensor, num_heads: int, half: int, width: int, base: float) -> Tensor:
    """Head h attends h + 1 positions back, by rotations alone, and reads the signature there."""
    size = 2 * half
    out = torch.zeros_like(qkv)
    frequencies = base ** (-torch.arange(half, dtype=torch.float32) / half)
    fast = frequencies > 0.02
    contrast = float((1 - frequencies[fast].cos()).sum())
    normed_tag = TAG_VALUE / 0.0455
    gain = (PEAK * size**0.5 / contrast) ** 0.5 / normed_tag
    for head in range(num_heads):
        angle = frequencies * (head + 1)
        left = slice(head * size, head * size + half)
        right = slice(head * size + half, (head + 1) * size)
        out[left, TAG] = gain * fast
        out[width:][left, TAG] = gain * angle.cos() * fast
        out[width:][right, TAG] = gain * angle.sin() * fast
        for element in range(SIGNATURE):
            out[2 * width + head * size + element, 1 + element] = 1.0
    return out


def _matching(
    qkv: Tensor, num_heads: int, half: int, width: int, body: int, generator: torch.Generator
) -> Tensor:
    """Every head compares (current, previous) with (previous, the one before) at each position."""
    size = 2 * half
    out = torch.zeros_like(qkv)
    slow = [*range(half // 2, half), *range(half + half // 2, size)]
    for head in range(num_heads):
        order = torch.randperm(SIGNATURE, generator=generator).tolist()
        signs = torch.randint(0, 2, (SIGNATURE,), generator=generator) * 2.0 - 1
        for element, row in enumerate(slow):
            query, key = out[head * size + row], out[width + head * size + row]
            query[1 + element] = key[body + element] = 2.0
            other, sign = order[element], float(signs[element])
            query[body + other] = key[body + SIGNATURE + other] = 1.5 * sign
            value = 1 + head * SIGNATURE + element
            if value < body:
                out[2 * width + head * size + element, value] = 1.0
    return out
