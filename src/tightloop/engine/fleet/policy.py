"""Policies by name, and the facts that they go by: a request, the members as they stand, a decision."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from typing import Final

from msgspec import Struct

FAST: Final = "fast"
BULK: Final = "bulk"

STANDARD: Final = "standard"
"""A tier between the two, if a configuration has one."""

ASKED_TIERS: Final = {
    "priority": FAST,
    "fast": FAST,
    "default": STANDARD,
    "flex": BULK,
    "batch": BULK,
}
"""``service_tier`` of a request to a member's tier; ``auto`` leaves it open, as does a word for a tier
that no member has."""

ANSWERED_TIERS: Final = {FAST: "priority", BULK: "flex"}
"""A member's tier to ``service_tier`` of the response, in the API's words; others: ``default``."""

NAMES: Final = (
    "latency-first",
    "throughput-first",
    "cheapest",
    "only:NAME",
    "split:NAME=50,NAME=50",
)
"""Every form of a policy's name."""


PLAIN_NAMES: Final = NAMES[:3]
"""Policies that can be an arm of a split."""


class Kind(Enum):
    """What a policy's name begins with."""

    LATENCY = "latency-first"
    THROUGHPUT = "throughput-first"
    CHEAPEST = "cheapest"
    ONLY = "only"
    SPLIT = "split"


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens."""

    input_usd: Decimal = Decimal(0)
    cached_usd: Decimal = Decimal(0)
    output_usd: Decimal = Decimal(0)

    def of(self, fresh: int, cached: int, output: int) -> Decimal:
        """US dollars for these numbers of tokens."""
        total = self.input_usd * fresh + self.cached_usd * cached + self.output_usd * output
        return total / 1_000_000


FREE: Final = Price()


@dataclass(frozen=True, slots=True)
class Parameters:
    """Where the policies draw their lines.

    An answer expected to have more than ``long_output_tokens`` is long. ``usual_output_tokens`` and
    ``usual_context_tokens`` stand in where nothing is known yet. A member is busy when it is full or
    its wait is above ``spill_wait_s``; a conversation leaves its member for a wait above
    ``affinity_wait_s``, which is about what reading a long context anew takes.
    """

    long_output_tokens: int = 2000
    usual_output_tokens: int = 400
    usual_context_tokens: int = 4000
    spill_wait_s: float = 0.5
    affinity_wait_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Arm:
    """One side of a split: a member's name, a tier or a policy, and its share of the sessions."""

    label: str
    weight: int


@dataclass(frozen=True, slots=True)
class Policy:
    """A named policy; ``parse_policy`` makes one."""

    name: str = Kind.LATENCY.value
    kind: Kind = Kind.LATENCY
    only: str = ""
    arms: tuple[Arm, ...] = ()
    parameters: Parameters = field(default_factory=Parameters)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of members or tiers in it."""
        return (self.only,) if self.only else tuple(arm.label for arm in self.arms)


class Ask(Struct, frozen=True, gc=False):
    """What the policy may know of a request.

    ``keeper`` is the member that has the conversation warm. ``recent_output`` is the average of
    this session's latest answers in tokens, ``num_context`` the tokens known to come before the
    new input; None and 0 where nothing is known.
    """

    session_key: str
    service_tier: str | None = None
    is_background: bool = False
    max_output_tokens: int | None = None
    recent_output: float | None = None
    num_context: int = 0
    keeper: str | None = None


class Standing(Struct, frozen=True, gc=False):
    """How a member stands at this moment. ``wait_s`` is what a request would wait before it starts.

    ``max_open`` 0: no limit. ``context_window`` 0: unknown.
    """

    name: str
    tier: str = FAST
    is_available: bool = True
    num_open: int = 0
    max_open: int = 0
    wait_s: float = 0.0
    context_window: int = 0
    price: Price = FREE

    @property
    def is_full(self) -> bool:
        """Whether another request would have to wait for one to end."""
        return bool(self.max_open) and self.num_open >= self.max_open


class Decision(Struct, frozen=True, gc=False):
    """``ranked`` are the names in the order in which they would be asked, ``member`` first."""

    member: str
    reason: str
    ranked: tuple[str, ...]
    policy: str
    expected_output: int


def parse_policy(text: str, parameters: Parameters | None = None) -> Policy:
    """The policy that ``text`` names. Raises ValueError with the choices."""
    parameters = parameters or Parameters()
    word, _, rest = text.partition(":")
    kind = next((kind for kind in Kind if kind.value == word), None)
    if kind is Kind.ONLY and rest:
        return Policy(text, kind, only=rest, parameters=parameters)
    if kind is Kind.SPLIT and rest:
        return Policy(text, kind, arms=_arms(text, rest), parameters=parameters)
    if kind in (Kind.LATENCY, Kind.THROUGHPUT, Kind.CHEAPEST) and text == word:
        return Policy(text, kind, parameters=parameters)
    raise ValueError(f"there is no policy {text[:100]!r}; choose one of {', '.join(NAMES)}")


def _arms(text: str, rest: str) -> tuple[Arm, ...]:
    arms = []
    for part in rest.split(","):
        label, _, weight = part.partition("=")
        if not label or not (weight.isascii() and weight.isdecimal()):
            raise ValueError(f"policy {text[:100]!r}: {part!r} is not NAME=WEIGHT")
        arms.append(Arm(label.strip(), int(weight)))
    if sum(arm.weight for arm in arms) <= 0:
        raise ValueError(f"policy {text[:100]!r}: the weights are all 0")
    return tuple(arms)


def arm_of(policy: Policy, session_key: str) -> str:
    """The arm of a split that a session is in: the same for ever, whatever else happens."""
    digest = blake2b(f"{policy.name}\0{session_key}".encode(), digest_size=8).digest()
    point = int.from_bytes(digest, "big") % sum(arm.weight for arm in policy.arms)
    for arm in policy.arms:
        point -= arm.weight
        if point < 0:
            return arm.label
    raise AssertionError("the point is below the sum of the weights")


def expected_output(ask: Ask, parameters: Parameters) -> int:
    """Output tokens to expect.

    A client's limit is only an upper bound: agents send the largest one there is with every request.
    """
    recent = ask.recent_output
    guess = parameters.usual_output_tokens if recent is None else round(recent)
    return guess if ask.max_output_tokens is None else min(guess, ask.max_output_tokens)


def asked_tier(ask: Ask, standings: Sequence[Standing]) -> str | None:
    """The tier that the request names, if a member has it: in the API's words or as it is called."""
    word = ask.service_tier
    if word is None or word == "auto":
        return None
    wanted = (word, ASKED_TIERS.get(word))
    return next((standing.tier for standing in standings if standing.tier in wanted), None)
