"""Which member answers a request. Pure: the facts come in, a decision goes out.

A policy is an order of criteria. The member that is best by the first criterion wins; where members
are equal, the next criterion decides. The reason of a decision is the first criterion by which the
winner beats the second. design/0020-tiers.md says why the orders are as they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cmp_to_key
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from tightloop.engine.fleet.policy import (
    BULK,
    FAST,
    PLAIN_NAMES,
    Ask,
    Decision,
    Kind,
    Policy,
    Standing,
    arm_of,
    asked_tier,
    expected_output,
    parse_policy,
)


def choose(policy: Policy, ask: Ask, standings: Sequence[Standing]) -> Decision:
    """Rank the members. ``standings`` is not empty; it is in the order of the configuration.

    Members that are not available come last. Raises ValueError when ``only:NAME`` names no member.
    """
    arm = arm_of(policy, ask.session_key) if policy.kind is Kind.SPLIT else None
    if arm in PLAIN_NAMES:
        inner = choose(parse_policy(arm, policy.parameters), ask, standings)
        return replace(inner, reason=f"arm {arm}: {inner.reason}", policy=policy.name)
    expected = expected_output(ask, policy.parameters)
    if policy.kind is Kind.ONLY:
        if all(standing.name != policy.only for standing in standings):
            raise ValueError(f"policy {policy.name!r} names no backend of this model")
        reason = "the policy's only choice"
        return Decision(policy.only, reason, (policy.only,), policy.name, expected)
    if len(standings) == 1:
        name = standings[0].name
        return Decision(name, "the only backend", (name,), policy.name, expected)
    case = _case(policy, ask, standings, expected, arm)
    criteria = _order(case)

    def compare(a: Standing, b: Standing) -> int:
        found = _difference(case, criteria, a, b)
        return found[1] if found is not None else 0

    if len(standings) == 2:  # the usual case; one look says all
        first, last = standings
        found = _difference(case, criteria, first, last)
        ranked = [first, last] if found is None or found[1] < 0 else [last, first]
    else:
        ranked = sorted(standings, key=cmp_to_key(compare))
        found = _difference(case, criteria, ranked[0], ranked[1])
    reason = "first in the list" if found is None else found[0].why(case, ranked[0], ranked[1])
    names = tuple([standing.name for standing in ranked])
    return Decision(names[0], reason, names, policy.name, expected)


def _difference(
    case: "_Case", criteria: Sequence["_Criterion"], a: Standing, b: Standing
) -> tuple["_Criterion", int] | None:
    """The first criterion by which the two differ, and the sign of the difference.

    One after the other, because most decisions fall early and the last ones cost most.
    """
    for criterion in criteria:
        mine, other = criterion.value(case, a), criterion.value(case, b)
        if mine != other:
            return criterion, -1 if mine < other else 1
    return None


# ---------------------------------------------------------------------- criteria


class _Case(Struct, frozen=True, gc=False):
    policy: Policy
    ask: Ask
    expected: int
    asked: str | None
    suited: str
    is_urgent: bool
    arm: str | None


def _case(
    policy: Policy, ask: Ask, standings: Sequence[Standing], expected: int, arm: str | None
) -> _Case:
    is_short = expected <= policy.parameters.long_output_tokens
    is_urgent = is_short and not ask.is_background and policy.kind is not Kind.THROUGHPUT
    return _Case(
        policy,
        ask,
        expected,
        asked_tier(ask, standings),
        FAST if is_urgent else BULK,
        is_urgent,
        arm,
    )


@dataclass(frozen=True, slots=True)
class _Criterion:
    """``value``: the lower, the better. ``why`` says what the winner is better in."""

    value: Callable[[_Case, Standing], Any]
    why: Callable[[_Case, Standing, Standing], str]


def _is_busy(case: _Case, standing: Standing) -> bool:
    return standing.is_full or standing.wait_s > case.policy.parameters.spill_wait_s


def _is_left(case: _Case, standing: Standing) -> bool:
    """False for the member that keeps the conversation."""
    limit_s = case.policy.parameters.affinity_wait_s
    return standing.name != case.ask.keeper or standing.wait_s > limit_s


def _is_too_small(case: _Case, standing: Standing) -> bool:
    return 0 < standing.context_window <= case.ask.num_context


def _cost(case: _Case, standing: Standing) -> Decimal:
    num_context = case.ask.num_context or case.policy.parameters.usual_context_tokens
    cached = num_context if standing.name == case.ask.keeper else 0
    return standing.price.of(num_context - cached, cached, case.expected)


def _why_suited(case: _Case, winner: Standing, _: Standing) -> str:
    if case.policy.kind is Kind.THROUGHPUT:
        what = "throughput"
    elif case.ask.is_background:
        what = "background"
    else:
        what = f"{'short' if case.is_urgent else 'long'} answer, about {case.expected} tokens"
    return f"{what}: tier {winner.tier}"


def _why_room(case: _Case, winner: Standing, second: Standing) -> str:
    queue = f"{second.num_open} open, wait {second.wait_s:.1f} s"
    return f"{second.name} is busy ({queue})"


_AVAILABLE: Final = _Criterion(
    lambda _, s: not s.is_available, lambda _, w, s: f"{s.name} is not available"
)
_FITS: Final = _Criterion(
    _is_too_small,
    lambda c, w, s: (
        f"{c.ask.num_context} tokens of context do not fit {s.name} ({s.context_window})"
    ),
)
_ARM: Final = _Criterion(
    lambda c, s: c.arm not in (s.name, s.tier), lambda c, w, s: f"arm {c.arm} of the split"
)
_ASKED: Final = _Criterion(
    lambda c, s: c.asked is not None and s.tier != c.asked,
    lambda c, w, s: f"service_tier {c.ask.service_tier}: tier {w.tier}",
)
_KEEPS: Final = _Criterion(_is_left, lambda c, w, s: "keeps its conversation, which is warm there")
_ROOM: Final = _Criterion(_is_busy, _why_room)
_SUITED: Final = _Criterion(lambda c, s: s.tier != c.suited, _why_suited)
_WAIT: Final = _Criterion(
    lambda _, s: round(s.wait_s, 1),
    lambda _, w, s: f"shorter wait ({w.wait_s:.1f} s, {s.name} {s.wait_s:.1f} s)",
)
_COST: Final = _Criterion(
    _cost, lambda c, w, s: f"cheaper (${_cost(c, w):.6f}, {s.name} ${_cost(c, s):.6f})"
)
_OPEN: Final = _Criterion(
    lambda _, s: s.num_open / (s.max_open or 1),
    lambda _, w, s: f"fewer open requests ({w.num_open}, {s.name} {s.num_open})",
)

_CAN: Final = (_AVAILABLE, _FITS)
_IN_A_HURRY: Final = (_ASKED, _KEEPS, _ROOM, _SUITED, _WAIT, _COST, _OPEN)
_AT_LEISURE: Final = (_ASKED, _KEEPS, _SUITED, _ROOM, _COST, _WAIT, _OPEN)
"""Work that nobody waits for stays off the fast tier even when the other one is busy."""

_HURRIED: Final = (*_CAN, *_IN_A_HURRY)
_PATIENT: Final = (*_CAN, *_AT_LEISURE)
_HURRIED_ARM: Final = (*_CAN, _ARM, *_IN_A_HURRY)
_PATIENT_ARM: Final = (*_CAN, _ARM, *_AT_LEISURE)
_SPREAD: Final = (*_CAN, _ASKED, _KEEPS, _SUITED, _ROOM, _OPEN, _WAIT, _COST)
_SAVING: Final = (*_CAN, _ASKED, _KEEPS, _COST, _ROOM, _WAIT, _OPEN)


def _order(case: _Case) -> Sequence[_Criterion]:
    kind = case.policy.kind
    if kind is Kind.THROUGHPUT:
        return _SPREAD
    if kind is Kind.CHEAPEST:
        return _SAVING
    if kind is Kind.SPLIT:
        return _HURRIED_ARM if case.is_urgent else _PATIENT_ARM
    return _HURRIED if case.is_urgent else _PATIENT
