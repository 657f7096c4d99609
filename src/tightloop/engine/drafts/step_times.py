"""What steps of each size really take, as an engine sees them while it decodes.

The curve that a backend measures at load is from a moment: on a machine that others use as well it
can be wrong in either direction, and it knows nothing of what surrounds a step. So the latest steps
of each size replace it, once there are some.
"""

from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Final

from tightloop.engine.drafts.policy import pays

KEPT: Final = 15
"""Latest steps of a size that count, by their median: a disturbed one has no effect."""

ENOUGH: Final = 5

FORGOTTEN_AFTER: Final = 256
"""Steps of other sizes after which those of a size say nothing any more, so that it is tried again."""


SHORT_NS: Final = 1_000_000


SIZES: Final = (2, 4, 8, 16)

HOPE: Final = 0.9
"""A size that was not measured is taken to cost this share of what it can cost at most."""


def possible(measured: Mapping[int, float]) -> dict[int, float]:
    """The curve without figures that cannot be, of a disturbed measurement.

    k tokens never cost more than k/m steps of m, for they could be evaluated in these.
    """
    costs: dict[int, float] = {}
    for size in sorted(measured):
        costs[size] = min(measured[size], _most(costs, size)) if costs else measured[size]
    return costs


def completed(costs: Mapping[int, float]) -> dict[int, float]:
    """The curve with a hope for larger sizes, so that they are tried, where what is known pays."""
    whole = dict(costs)
    if pays(whole):
        for size in SIZES:
            if size > max(whole):
                whole[size] = HOPE * _most(whole, size)
    return whole


def _most(costs: Mapping[int, float], size: int) -> float:
    return min(size / small * cost for small, cost in costs.items())


class StepTimes:
    """Cost curves from the time that steps take. ``measured`` is c(k) at load, c(1) being 1."""

    def __init__(self, measured: Mapping[int, float]) -> None:
        self._measured = possible(measured)
        sizes = {*measured, *SIZES} if measured else ()
        self._steps: dict[int, deque[int]] = {size: deque(maxlen=KEPT) for size in sizes}
        self._last: dict[int, int] = dict.fromkeys(sizes, 0)
        self._num_steps = 0

    @property
    def has_base(self) -> bool:
        """Whether enough steps of one token are known to compare with."""
        return len(self._steps.get(1, ())) >= ENOUGH

    @property
    def is_short(self) -> bool:
        """Whether following the sources, for 10 to 30 us a token, is a good part of a step."""
        return self.has_base and median(self._steps[1]) < SHORT_NS

    def note(self, size: int, taken_ns: int) -> None:
        """A step of ``size`` tokens took so long. Sizes that no plan has are left out."""
        if size not in self._steps:
            return
        self._num_steps += 1
        self._last[size] = self._num_steps
        self._steps[size].append(taken_ns)

    def costs(self) -> dict[int, float]:
        """c(k) now."""
        for size, last in self._last.items():
            if self._num_steps - last > FORGOTTEN_AFTER:
                self._steps[size].clear()
        if not self.has_base:
            return completed(self._measured)
        one = max(1.0, median(self._steps[1]))
        seen = {
            size: median(steps) / one for size, steps in self._steps.items() if len(steps) >= ENOUGH
        }
        return completed(self._measured | seen)

    def forget(self) -> None:
        """Only what was measured at load counts."""
        for steps in self._steps.values():
            steps.clear()
