"""Policies by their names, and what they go by."""

from typing import Any

import pytest

from tightloop.engine.fleet.policy import (
    NAMES,
    Ask,
    Parameters,
    arm_of,
    expected_output,
    parse_policy,
)


def ask(**fields: Any) -> Ask:
    return Ask("s", **fields)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("fastest", "choose one of latency-first"),
        ("latency-first:x", "latency-first:x"),
        ("only:", "only:"),
        ("only", "only"),
        ("split:", "split"),
        ("split:a", "'a' is not NAME=WEIGHT"),
        ("split:a=1,=2", "'=2'"),
        ("split:a=-1", "'a=-1'"),
        ("split:a=0,b=0", "all 0"),
        ("", "there is no policy ''"),
    ],
)
def test_other_names_are_refused(text: str, word: str) -> None:
    """With what is wrong, or with the choices."""
    with pytest.raises(ValueError, match=word):
        parse_policy(text)


def test_the_names_are_those_that_are_read() -> None:
    """What the message offers is accepted."""
    assert list(NAMES) == [parse_policy(name).name for name in NAMES]


def test_a_limit_is_an_upper_bound_only() -> None:
    """Agents ask for the most there is with every request."""
    assert expected_output(ask(max_output_tokens=32_000), Parameters()) == 400
    assert expected_output(ask(max_output_tokens=32_000, recent_output=900.4), Parameters()) == 900


def test_a_split_has_its_shares() -> None:
    """About; and a session stays in its arm."""
    policy = parse_policy("split:a=75,b=25")
    arms = [arm_of(policy, f"session {n}") for n in range(2000)]
    assert 1400 < arms.count("a") < 1600
    assert arms == [arm_of(policy, f"session {n}") for n in range(2000)]
    first = "".join(arm_of(policy, f"session {n}") for n in range(8))
    assert first == "aabaabba"  # also in the next process
