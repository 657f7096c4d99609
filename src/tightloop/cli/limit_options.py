"""Options that end a turn, or keep it from growing: budgets, patience, compaction."""

import argparse
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

from tightloop.cli.option_values import early_end, positive, positive_seconds

if TYPE_CHECKING:  # it brings asyncio along, which is half of what --help may cost
    from tightloop.agent.turn import Limits

NUM_RETRIES: Final = 8
COMPACT_AT: Final = 0.8
EARLY_END_TOKENS: Final = 100.0
"""Those of ``Limits``, as a test says."""


def add_limit_options(parser: argparse._ActionsContainer) -> None:
    """How much may be used up, and how long to try."""
    add = parser.add_argument
    add(
        "--max-turns",
        type=positive,
        default=50,
        metavar="N",
        help="responses at most (default: 50)",
    )
    add(
        "--timeout",
        type=positive_seconds,
        default=1800.0,
        metavar="S",
        help="seconds at most (default: 1800)",
    )
    add(
        "--max-tokens",
        type=positive,
        metavar="N",
        help="tokens at most, input and output of a turn's responses together",
    )
    add("--max-output-tokens", type=positive, metavar="N", help="tokens of output at most")
    add(
        "--max-cost",
        type=dollars,
        metavar="USD",
        help="US dollars at most, all turns together; needs the model's price in the configuration"
        " (see docs/resilience.md)",
    )
    add(
        "--max-time",
        type=positive_seconds,
        metavar="S",
        help="seconds at most, all turns together",
    )
    add(
        "--max-retries",
        type=whole,
        default=NUM_RETRIES,
        metavar="N",
        help="how often a request that fails is made again, in a row (default: 8)",
    )
    add(
        "--compact-at",
        type=share,
        default=COMPACT_AT,
        metavar="F",
        help="make the conversation shorter when so much of the model's context window is full;"
        " 'never' waits until it does not fit (default: 0.8)",
    )
    add(
        "--early-end",
        type=early_end,
        default=EARLY_END_TOKENS,
        metavar="N",
        help="end a response when a call in it cannot succeed any more and N more tokens are"
        " expected of it; 'never' lets all of them finish (default: 100)",
    )


def limits_of(arguments: argparse.Namespace) -> "Limits":
    """What the options come to."""
    from tightloop.agent.resilience import Patience
    from tightloop.agent.turn import Limits

    return Limits(
        arguments.max_turns,
        arguments.timeout,
        arguments.early_end,
        output_tokens=arguments.max_output_tokens,
        total_tokens=arguments.max_tokens,
        conversation_wall_s=arguments.max_time,
        conversation_cost_usd=arguments.max_cost,
        compact_at=arguments.compact_at,
        patience=Patience(max_tries=arguments.max_retries),
    )


def dollars(text: str) -> Decimal:
    """An amount above 0."""
    try:
        amount = Decimal(text.removeprefix("$"))
    except InvalidOperation:
        amount = Decimal(0)
    if amount.is_finite() and amount > 0:
        return amount
    raise argparse.ArgumentTypeError(f"must be an amount of US dollars above 0, got {text!r}")


def share(text: str) -> float | None:
    """A part of a whole, above 0 and at most 1; None for never."""
    if text == "never":
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if 0 < number <= 1:
        return number
    raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, or 'never', got {text!r}")


def whole(text: str) -> int:
    """A whole number, 0 included."""
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}")
