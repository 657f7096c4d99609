"""When to give up, and what tokens cost."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from tightloop.agent.resilience import Patience
from tightloop.protocol.deltas import Usage

_MILLION: Final = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens: of input that is read anew, input from the cache, output."""

    input_usd: Decimal
    cached_usd: Decimal
    output_usd: Decimal

    def cost_usd(self, usage: Usage) -> Decimal:
        """What so many tokens cost."""
        cached = min(usage.cached_tokens, usage.input_tokens)
        return (
            self.input_usd * (usage.input_tokens - cached)
            + self.cached_usd * cached
            + self.output_usd * usage.output_tokens
        ) / _MILLION


@dataclass(frozen=True, slots=True)
class Limits:
    """When to give up; None is no limit.

    Of a turn: ``max_turns`` responses, ``wall_s`` seconds, ``output_tokens``, ``total_tokens`` (input,
    read anew or from a cache, and output), ``cost_usd`` US dollars, which needs the model's ``price``. Of
    all turns of a conversation in this process: ``conversation_wall_s``, ``conversation_cost_usd``.

    A response is ended early when a call in it can no longer succeed and at least
    ``cancel_min_tokens`` more are expected of that call; 0 always does, None never. A response that
    says nothing for ``stall_s`` seconds is asked for again, like others that break off, with
    ``patience``. From ``compact_at`` of the model's context window on the conversation is made
    shorter; None waits until it does not fit.
    """

    max_turns: int = 50
    wall_s: float = 3600.0
    cancel_min_tokens: float | None = 100.0
    output_tokens: int | None = None
    total_tokens: int | None = None
    cost_usd: Decimal | None = None
    conversation_wall_s: float | None = None
    conversation_cost_usd: Decimal | None = None
    price: Price | None = None
    stall_s: float = 300.0
    compact_at: float | None = 0.8
    patience: Patience = field(default_factory=Patience)
