"""The network: a llama-architecture decoder in plain torch, in the layout that export.py writes."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shape:
    num_vocab: int = 3072
    width: int = 192
    num_layers: int = 6
    num_heads: int = 3
    num_hidden: int = 512
    context: int = 1024
    rope_base: float = 1e6
    norm_epsilon: float = 1e-5


class Norm(nn.Module):
    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return x * scale * self.weight


class Block(nn.Module):
    """Attention with half-split rotary embedding, then SwiGLU; both pre-normed and residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d, ff = shape.width, shape.num_hidden
        self.heads = shape.num_heads
        self.attn_norm, self.ffn_norm = Norm(d, shape.norm_epsilon), Norm(d, shape.norm_epsilon)
        self.qkv = nn.Parameter(torch.randn(3 * d, d) * d**-0.5)
        self.out = nn.Parameter(torch.zeros(d, d))
        self.gate_up = nn.Parameter(torch.randn(2 * ff, d) * d**-0.5)
        self.down = nn.Parameter(torch.zeros(d, ff))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rows, length, width = x.shape
        qkv = F.linear(self.attn_norm(x), self.qkv)
        q, k, v = qkv.view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True
        )
        x = x + F.linear(mixed.transpose(1, 2).reshape(rows, length, width), self.out)
        gate, up = F.linear(self.ffn_norm(x), self.gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), -1)


class Network(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.randn(shape.num_vocab, shape.width) * 0.02)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.num_layers))
        self.norm = Norm(shape.width, shape.norm_epsilon)
        half = shape.width // shape.num_heads // 2
        frequencies = shape.rope_base ** (-torch.arange(half, dtype=torch.float32) / half)
        angles = torch.arange(shape.context, dtype=torch.float32)[:, None] * frequencies
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Hidden states (rows, length, width); logits are `hidden @ embedding.T`."""
        length = tokens.shape[1]
        x = F.embedding(tokens, self.embedding)
        cos, sin = self.cos[:length], self.sin[:length]
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.embedding.T

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised (Jordan et al. 2024); for matrices only."""

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                grad = parameter.grad
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(grad)
                buffer = state["momentum"]
                buffer.lerp_(grad, 1 - group["momentum"])
                update = orthogonal(grad.lerp(buffer, group["momentum"]))
                scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                parameter.add_(update, alpha=-group["lr"] * scale)


def orthogonal(matrix: Tensor, num_steps: int = 5) -> Tensor:
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrix."""
    a, b, c = 3.4445, -4.7750, 2.0315
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(num_steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if is_tall else x
