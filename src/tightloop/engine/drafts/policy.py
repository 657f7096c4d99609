"""How many drafts to check in one step: as many as make tokens fastest, none where it does not pay.

A step that evaluates k tokens costs c(k) steps of one token. Its first token is known to be right;
if the j-th draft is right with probability a_j, given those before it, the step makes
E(k) = 1 + a_1 + a_1 a_2 + ... + a_1...a_(k-1) tokens. Drafts pay by S(k) = E(k) / c(k).
Source: Leviathan et al., "Fast Inference from Transformers via Speculative Decoding" (2023), with
a measured c(k) in place of a constant share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MARGIN: Final = 1.05
"""Least estimated gain that turns drafts on."""


@dataclass(frozen=True, slots=True)
class Plan:
    """``num_drafts`` to check in a step, and how many times as fast tokens should come then."""

    num_drafts: int
    gain: float


OFF: Final = Plan(0, 1.0)


def ceiling(costs: Mapping[int, float]) -> float:
    """The gain if every draft were right."""
    return max((size / cost for size, cost in costs.items()), default=1.0)


def pays(costs: Mapping[int, float]) -> bool:
    """Whether drafts could be worth checking at all."""
    return ceiling(costs) >= MARGIN


def beside(costs: Mapping[int, float], num_others: int) -> dict[int, float]:
    """The curve of one session when ``num_others`` have a token of their own in each step.

    Only measured steps count, for the curve is not smooth: a step of a size that was not measured
    is taken to cost as much as the next larger one, and the step without drafts as the next
    smaller one.
    """
    if not num_others:
        return dict(costs)
    sizes = sorted(costs)
    alone = max((costs[size] for size in sizes if size <= 1 + num_others), default=1.0)
    shared: dict[int, float] = {1: 1.0}
    for size in sizes:
        fits = [costs[large] for large in sizes if large >= size + num_others]
        if size > 1 and fits:
            shared[size] = max(1.0, fits[0] / alone)
    return shared


def plan(costs: Mapping[int, float], acceptance: Sequence[float], num_others: int = 0) -> Plan:
    """The best number of drafts; ``acceptance[j]`` is a_(j+1), its last entry holds from there on.

    ``costs`` maps k to c(k), with c(1) = 1, and is ``beside`` the others. Their tokens count too:
    each of the ``num_others`` gets one in the step, and waits longer for it.
    """
    best, best_gain = OFF, MARGIN
    tokens, chance, size = 1.0, 1.0, 1
    for wanted in sorted(costs):
        while size < wanted:
            chance *= acceptance[min(size - 1, len(acceptance) - 1)]
            tokens += chance
            size += 1
        gain = (num_others + tokens) / ((num_others + 1) * costs[wanted])
        if wanted > 1 and gain >= best_gain:
            best, best_gain = Plan(wanted - 1, gain), gain
    return best
