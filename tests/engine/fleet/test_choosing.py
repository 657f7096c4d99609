"""Policies as tables: what is asked, how the members stand, who answers and why."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.engine.fleet.choosing import choose
from tightloop.engine.fleet.policy import Ask, Price, Standing, parse_policy

CHEAP = Price(Decimal("0.1"), Decimal("0.01"), Decimal("0.4"))
DEAR = Price(Decimal(1), Decimal("0.5"), Decimal(4))


def standings(**changed: dict[str, Any]) -> list[Standing]:
    """A fast and dear member ``f``, a slow and cheap one ``b``."""
    f: dict[str, Any] = {"tier": "fast", "price": DEAR, "max_open": 4, **changed.get("f", {})}
    b: dict[str, Any] = {"tier": "bulk", "price": CHEAP, "max_open": 8, **changed.get("b", {})}
    return [Standing("f", **f), Standing("b", **b)]


def ask(**fields: Any) -> Ask:
    return Ask("s", **fields)


TABLE: list[tuple[str, Ask, dict[str, Any], str, str]] = [
    # policy, request, what differs in the members, who, why
    ("latency-first", ask(), {}, "f", "short answer, about 400 tokens: tier fast"),
    ("latency-first", ask(is_background=True), {}, "b", "background: tier bulk"),
    (
        "latency-first",
        ask(recent_output=5200.0),
        {},
        "b",
        "long answer, about 5200 tokens: tier bulk",
    ),
    (
        "latency-first",
        ask(recent_output=5200.0, max_output_tokens=64),
        {},
        "f",
        "short answer, about 64 tokens: tier fast",
    ),
    ("latency-first", ask(service_tier="auto"), {}, "f", "short answer, about 400 tokens: tier fast"),
    ("latency-first", ask(service_tier="flex"), {}, "b", "service_tier flex: tier bulk"),
    (
        "latency-first",
        ask(service_tier="default"),
        {},
        "f",
        "short answer, about 400 tokens: tier fast",
    ),
    (
        "latency-first",
        ask(service_tier="default"),
        {"b": {"tier": "standard"}},
        "b",
        "service_tier default: tier standard",
    ),
    ("latency-first", ask(service_tier="batch"), {}, "b", "service_tier batch: tier bulk"),
    (
        "latency-first",
        ask(service_tier="priority", is_background=True),
        {},
        "f",
        "service_tier priority: tier fast",
    ),
    (
        "latency-first",
        ask(service_tier="night"),
        {"b": {"tier": "night"}},
        "b",
        "service_tier night: tier night",
    ),
    (
        "latency-first",
        ask(service_tier="scale"),
        {},
        "f",
        "short answer, about 400 tokens: tier fast",
    ),
    ("latency-first", ask(keeper="b"), {}, "b", "keeps its conversation, which is warm there"),
    (
        "latency-first",
        ask(keeper="b", service_tier="priority"),
        {},
        "f",
        "service_tier priority: tier fast",
    ),
    ("latency-first", ask(keeper="b"), {"b": {"is_available": False}}, "f", "b is not available"),
    (
        "latency-first",
        ask(keeper="b"),
        {"b": {"wait_s": 9.0, "num_open": 8}},
        "f",
        "b is busy (8 open, wait 9.0 s)",
    ),
    (
        "latency-first",
        ask(),
        {"f": {"num_open": 4, "wait_s": 0.1}},
        "b",
        "f is busy (4 open, wait 0.1 s)",
    ),
    (
        "latency-first",
        ask(is_background=True),
        {"b": {"num_open": 9, "wait_s": 3.0}},
        "b",
        "background: tier bulk",
    ),
    (
        "latency-first",
        ask(num_context=9000),
        {"f": {"context_window": 8192}},
        "b",
        "9000 tokens of context do not fit f (8192)",
    ),
    (
        "latency-first",
        ask(),
        {"f": {"tier": "bulk"}},
        "b",
        "cheaper ($0.000560, f $0.005600)",
    ),
    (
        "latency-first",
        ask(),
        {"f": {"tier": "bulk", "price": CHEAP, "num_open": 2}, "b": {"max_open": 4}},
        "b",
        "fewer open requests (0, f 2)",
    ),
    (
        "latency-first",
        ask(),
        {"b": {"tier": "fast"}, "f": {"wait_s": 0.4}},
        "b",
        "shorter wait (0.0 s, f 0.4 s)",
    ),
    ("latency-first", ask(), {"f": {"tier": "x", "price": CHEAP}, "b": {"tier": "y"}}, "f", "first in the list"),
    ("throughput-first", ask(), {}, "b", "throughput: tier bulk"),
    ("throughput-first", ask(service_tier="priority"), {}, "f", "service_tier priority: tier fast"),
    ("throughput-first", ask(keeper="f"), {}, "f", "keeps its conversation, which is warm there"),
    ("cheapest", ask(), {}, "b", "cheaper ($0.000560, f $0.005600)"),
    (
        "cheapest",
        ask(keeper="f", num_context=90_000),
        {},
        "f",
        "keeps its conversation, which is warm there",
    ),
    ("only:f", ask(is_background=True), {}, "f", "the policy's only choice"),
    ("only:b", ask(service_tier="priority"), {}, "b", "the policy's only choice"),
    ("split:f=0,b=1", ask(service_tier="priority", keeper="f"), {}, "b", "arm b of the split"),
    ("split:fast=1,bulk=0", ask(is_background=True), {}, "f", "arm fast of the split"),
    ("split:f=0,b=1", ask(), {"b": {"is_available": False}}, "f", "b is not available"),
    (
        "split:latency-first=0,throughput-first=1",
        ask(),
        {},
        "b",
        "arm throughput-first: throughput: tier bulk",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "asked", "changed", "who", "why"), TABLE)
def test_who_answers_and_why(
    policy: str, asked: Ask, changed: dict[str, Any], who: str, why: str
) -> None:
    """The reason is the first thing by which the winner beats the next one."""
    decision = choose(parse_policy(policy), asked, standings(**changed))
    assert (who, why, policy) == (decision.member, decision.reason, decision.policy)
    assert decision.ranked[0] == who


def test_the_only_backend_needs_no_reason() -> None:
    assert choose(parse_policy("cheapest"), ask(), standings()[:1]).reason == "the only backend"


def test_only_is_followed_by_nobody() -> None:
    """An arm of a test that went elsewhere would be no arm."""
    assert choose(parse_policy("only:f"), ask(), standings()).ranked == ("f",)
    with pytest.raises(ValueError, match="only:z"):
        choose(parse_policy("only:z"), ask(), standings())


members = st.lists(
    st.builds(
        Standing,
        name=st.sampled_from("abcd"),
        tier=st.sampled_from(["fast", "bulk", "night"]),
        is_available=st.booleans(),
        num_open=st.integers(0, 9),
        max_open=st.integers(0, 4),
        wait_s=st.floats(0, 10),
        context_window=st.integers(0, 9),
        price=st.sampled_from([CHEAP, DEAR]),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda member: member.name,
)
asks = st.builds(
    Ask,
    session_key=st.text(max_size=3),
    service_tier=st.sampled_from([None, "auto", "flex", "priority", "night", "x"]),
    is_background=st.booleans(),
    max_output_tokens=st.none() | st.integers(16, 9999),
    recent_output=st.none() | st.floats(0, 9999),
    num_context=st.integers(0, 9),
    keeper=st.none() | st.sampled_from("abcd"),
)
names = st.sampled_from(["latency-first", "throughput-first", "cheapest", "split:a=1,bulk=1"])


@settings(max_examples=200, deadline=None)
@given(names, asks, members)
def test_every_member_is_ranked_once_and_the_well_come_first(
    name: str, asked: Ask, found: list[Standing]
) -> None:
    """Whatever is asked; the same question has the same answer."""
    decision = choose(parse_policy(name), asked, found)
    assert sorted(member.name for member in found) == sorted(decision.ranked)
    well = {member.name: member.is_available for member in found}
    order = [well[name] for name in decision.ranked]
    assert sorted(order, reverse=True) == order
    assert decision.reason
    assert choose(parse_policy(name), asked, found) == decision
