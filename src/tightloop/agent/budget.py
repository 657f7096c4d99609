"""What a conversation may use up: responses, tokens, money, time; and what it has.

Counted from the usage that servers report, when a response ends; so the last response of a turn may go
over a budget of tokens or money by what it says itself. Candidates of a race share one object.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from tightloop.agent.limits import Limits
from tightloop.protocol.deltas import Usage

NEARLY: Final = 0.8
"""From this share of a budget on the model is told of it, once a turn."""


class PriceUnknown(ValueError):
    """A budget of money without a price; the text says what to do."""


@dataclass(frozen=True, slots=True)
class _Line:
    """One budget: what it is of, how much was used, how much may be."""

    name: str
    used: float
    limit: float
    show: Callable[[float], str]


class Budget:
    """Counts for one conversation, or for several that share it. ``now_ns`` reads a clock."""

    def __init__(self, limits: Limits, now_ns: Callable[[], int]) -> None:
        """Raises ``PriceUnknown``."""
        self.limits = limits
        self.usage = Usage()
        """Of all turns so far."""
        self.turn_usage = Usage()
        self.num_responses = 0
        """Of this turn."""
        wants_price = limits.cost_usd is not None or limits.conversation_cost_usd is not None
        if wants_price and limits.price is None:
            raise PriceUnknown(
                "a budget of money needs the model's price: put it into the configuration as "
                '[limits.models."NAME"] with input_usd, cached_usd and output_usd '
                "(US dollars per million tokens)"
            )
        self._now_ns = now_ns
        self._begun_ns: int | None = None
        self._before_s = 0.0
        self._held_since_ns: int | None = None
        self._num_holds = 0
        self._told: set[str] = set()

    def shared(self) -> "SharedBudget":
        """This one for a candidate of the turn that runs: it counts here, and begins no turn."""
        return SharedBudget(self)

    def begin_turn(self) -> None:
        """A user's message is being worked on."""
        self._num_holds, self._held_since_ns = 0, None
        self.turn_usage, self.num_responses = Usage(), 0
        self._told.clear()
        self._begun_ns = self._now_ns()

    def end_turn(self) -> None:
        """The turn is over. May be called twice."""
        self._before_s, self._begun_ns = self.conversation_s, None

    def hold(self, is_held: bool) -> None:
        """A person is asked, or has answered: the time between is nobody's."""
        if self._begun_ns is None:
            return
        self._num_holds = max(0, self._num_holds + (1 if is_held else -1))
        if is_held and self._held_since_ns is None:
            self._held_since_ns = self._now_ns()
        elif not self._num_holds and self._held_since_ns is not None:
            self._begun_ns += self._now_ns() - self._held_since_ns
            self._held_since_ns = None

    def add(self, usage: Usage) -> None:
        """A response has ended."""
        self.num_responses += 1
        self.add_aside(usage)

    def add_aside(self, usage: Usage) -> None:
        """Tokens were used for something else than a response of the turn."""
        self.usage, self.turn_usage = added(self.usage, usage), added(self.turn_usage, usage)

    @property
    def is_running(self) -> bool:
        """Whether a turn is being worked on."""
        return self._begun_ns is not None

    @property
    def turn_s(self) -> float:
        """How long the running turn has taken; 0 when none runs."""
        if self._begun_ns is None:
            return 0.0
        until_ns = self._now_ns() if self._held_since_ns is None else self._held_since_ns
        return (until_ns - self._begun_ns) / 1e9

    @property
    def conversation_s(self) -> float:
        """How long all turns have taken."""
        return self._before_s + self.turn_s

    @property
    def cost_usd(self) -> Decimal | None:
        """Of all turns so far; None where no price is known."""
        price = self.limits.price
        return None if price is None else price.cost_usd(self.usage)

    @property
    def rest_s(self) -> float:
        """How much longer the running turn may take."""
        limits = self.limits
        rest_s = limits.wall_s - self.turn_s
        if limits.conversation_wall_s is not None:
            rest_s = min(rest_s, limits.conversation_wall_s - self.conversation_s)
        return max(0.0, rest_s)

    def spent(self) -> str:
        """Why no further response may be asked for; empty when one may."""
        for line in self._lines():
            if line.used >= line.limit:
                return (
                    f"the budget of {line.name} is used up: "
                    f"{line.show(line.used)} of {line.show(line.limit)}"
                )
        return ""

    def news(self) -> list[str]:
        """What the model should know of budgets that are nearly used up; each is told once a turn."""
        texts = []
        for line in self._lines():
            if line.used >= NEARLY * line.limit and line.name not in self._told:
                self._told.add(line.name)
                texts.append(
                    f"{line.show(line.used)} of {line.show(line.limit)} are used of this task's "
                    f"budget of {line.name}. Come to an end before it is used up: keep what works, "
                    "and say what is missing."
                )
        return texts

    def _lines(self) -> Iterator[_Line]:
        limits, turn = self.limits, self.turn_usage
        yield _Line("responses", self.num_responses, limits.max_turns, _count)
        if limits.output_tokens is not None:
            yield _Line("output tokens", turn.output_tokens, limits.output_tokens, _count)
        if limits.total_tokens is not None:
            used = turn.input_tokens + turn.output_tokens
            yield _Line("tokens", used, limits.total_tokens, _count)
        yield _Line("time", self.turn_s, limits.wall_s, _seconds)
        if limits.conversation_wall_s is not None:
            name = "time for the conversation"
            yield _Line(name, self.conversation_s, limits.conversation_wall_s, _seconds)
        if limits.price is None:
            return
        if limits.cost_usd is not None:
            cost = limits.price.cost_usd(turn)
            yield _Line("money", float(cost), float(limits.cost_usd), _dollars)
        if limits.conversation_cost_usd is not None:
            cost = limits.price.cost_usd(self.usage)
            name = "money for the conversation"
            yield _Line(name, float(cost), float(limits.conversation_cost_usd), _dollars)


class SharedBudget(Budget):
    """Counts its own turn, and all of it in another one too, which can end it."""

    def __init__(self, above: Budget) -> None:
        super().__init__(above.limits, above._now_ns)
        self._above = above

    def add(self, usage: Usage) -> None:
        """See ``Budget.add``; responses are counted for each candidate, tokens for all."""
        super().add(usage)
        self._above.add_aside(usage)

    def spent(self) -> str:
        """See ``Budget.spent``."""
        return super().spent() or self._above.spent()

    @property
    def rest_s(self) -> float:
        """See ``Budget.rest_s``."""
        return min(super().rest_s, self._above.rest_s) if self._above.is_running else super().rest_s


def added(a: Usage, b: Usage) -> Usage:
    """Both together."""
    return Usage(
        a.input_tokens + b.input_tokens,
        a.cached_tokens + b.cached_tokens,
        a.output_tokens + b.output_tokens,
        a.reasoning_tokens + b.reasoning_tokens,
    )


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _seconds(number: float) -> str:
    return f"{number:.1f} s"


def _dollars(number: float) -> str:
    return f"${number:.4f}"
