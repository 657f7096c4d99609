"""Variants of one comparison, round after round, each in its turn; rows and ratios made of them."""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.lab.record import Figure, Ratio, Row, Value, paired_ratio
from tightloop.trace.clock import now_ns

Sample = Callable[[], Awaitable[float]]
"""One measurement: milliseconds. What it tidies up, or prepares, is not in them."""

SEED = 20261123
FIGURE = "time"
OWN = "tightloop"
"""What the names of our own variants begin with; ratios are of others'."""


def timed(action: Callable[[], Awaitable[object]]) -> Sample:
    """The whole of ``action`` as a measurement."""

    async def sample() -> float:
        started_ns = now_ns()
        await action()
        return (now_ns() - started_ns) / 1e6

    return sample


async def in_turn(samples: Mapping[str, Sample], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each in each round, after a round that does not count; random order."""
    took: dict[str, list[float]] = {name: [] for name in samples}
    shuffled = random.Random(SEED)
    for number in range(rounds + 1):
        for name in shuffled.sample(list(samples), len(samples)):
            found = await samples[name]()
            if number:
                took[name].append(found)
    return took


@dataclass(slots=True)
class Table:
    """Rows and ratios of an experiment as they come."""

    rows: list[Row] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)

    def add(
        self,
        took: Mapping[str, Sequence[float]],
        ours: Sequence[str],
        *,
        floor: str = "",
        figure: str = FIGURE,
        **params: Value,
    ) -> None:
        """A row for each; how many times each of ``ours`` goes into each of the others.

        With ``floor`` a second figure says what each takes over that one in the same round.
        """
        place = " ".join(str(value) for value in params.values())
        for name, values in took.items():
            figures = {figure: Figure.of(values, "ms")}
            if floor and name != floor:
                over = [mine - least for mine, least in zip(values, took[floor], strict=True)]
                figures["over the command"] = Figure.of(over, "ms")
            self.rows.append(Row(name, dict(params), figures))
        for mine in ours:
            self.ratios += [
                paired_ratio(f"{figure} {place}".strip(), name, mine, values, took[mine])
                for name, values in took.items()
                if not name.startswith(OWN)
            ]

    def miss(self, variant: str, reason: str, **params: Value) -> None:
        """A row that says why it was not measured."""
        self.rows.append(Row(variant, dict(params), {}, reason))
