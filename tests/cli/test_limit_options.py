"""Budgets on the command line."""

import argparse
from decimal import Decimal

import pytest

from tightloop.agent.turn import Limits
from tightloop.cli.limit_options import add_limit_options, limits_of


def parsed(*words: str) -> Limits:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_limit_options(parser)
    return limits_of(parser.parse_args(words))


def test_defaults_limit_responses_and_time_only() -> None:
    limits = parsed()
    assert (limits.max_turns, limits.wall_s, limits.compact_at) == (50, 1800.0, 0.8)
    budgets = (limits.total_tokens, limits.output_tokens, limits.conversation_cost_usd)
    assert budgets == (None, None, None)
    own = Limits()
    assert limits.patience.max_tries == own.patience.max_tries
    assert limits.compact_at == own.compact_at
    assert limits.cancel_min_tokens == own.cancel_min_tokens


def test_each_option_has_its_limit() -> None:
    limits = parsed(
        "--max-tokens", "9", "--max-output-tokens", "8", "--max-cost", "$0.5", "--max-time", "7",
        "--max-retries", "0", "--compact-at", "never", "--early-end", "never",
    )  # fmt: skip
    assert (limits.total_tokens, limits.output_tokens) == (9, 8)
    assert (limits.conversation_cost_usd, limits.conversation_wall_s) == (Decimal("0.5"), 7.0)
    assert (limits.patience.max_tries, limits.compact_at, limits.cancel_min_tokens) == (
        0,
        None,
        None,
    )


@pytest.mark.parametrize(
    "words",
    [
        ("--max-cost", "0"),
        ("--max-cost", "NaN"),
        ("--max-cost", "many"),
        ("--max-cost", "-1"),
        ("--compact-at", "0"),
        ("--compact-at", "1.1"),
        ("--compact-at", "x"),
        ("--max-retries", "-1"),
        ("--max-tokens", "0"),
    ],
)
def test_nonsense_is_refused(words: tuple[str, str]) -> None:
    with pytest.raises(argparse.ArgumentError, match=r"must be|expected one argument"):
        parsed(*words)
