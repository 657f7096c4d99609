"""What steps of each size really take, as an engine sees them while it decodes.

The curve that a backend measures at load is from a moment: on a machine that others use as well it
can be wrong in either direction, and it knows nothing of what surrounds a step. So the latest steps
of each size replace it, once there are some.
"""

from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Final

KEPT: Final = 15
"""Latest steps of a size that count, by their median: a disturbed one has no effect."""

ENOUGH: Final = 5

FORGOTTEN_AFTER: Final = 256
"""Steps of other sizes after which those of a size say nothing any more, so that it is tried again."""


SHORT_NS: Final = 1_000_000


class StepTimes:
    """Cost curves from the time that steps take. ``measured`` is c(k) at load, c(1) being 1."""

    def __init__(self, measured: Mapping[int, float]) -> None:
        self._measured = dict(measured)
        self._steps: dict[int, deque[int]] = {size: deque(maxlen=KEPT) for size in measured}
        self._last: dict[int, int] = dict.fromkeys(measured, 0)
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
        """A step of ``size`` tokens took so long. Sizes that are not in the curve are left out."""
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
            return dict(self._measured)
        one = max(1.0, median(self._steps[1]))
        return {
            size: median(steps) / one if len(steps) >= ENOUGH else self._measured[size]
            for size, steps in self._steps.items()
        }

    def forget(self) -> None:
        """Only what was measured at load counts."""
        for steps in self._steps.values():
            steps.clear()
