"""What continuous checks came to: the only definitions of used and wasted.

A run is **used** when its result was taken in, whether it held anything new or not. It is **wasted**
when it was cut short: a later patch had made it stale, its time was up, or the conversation
ended. Its processor time is what its processes took, in ticks of the kernel (10 ms as a rule).
"""

from collections.abc import Sequence
from operator import add

from msgspec import Struct
from msgspec.structs import astuple


class CheckRun(Struct, frozen=True):
    """One run of one check. Clock readings in ns. ``reason`` says why it was wasted, empty for a used
    one; facts are counted as told, so a run that only sets the baseline has none."""

    name: str
    reason: str
    started_ns: int
    ended_ns: int
    cpu_s: float
    num_new: int = 0
    num_resolved: int = 0


class CheckFigures(Struct, frozen=True):
    """Several runs together."""

    num_used: int = 0
    num_wasted: int = 0
    used_cpu_s: float = 0.0
    wasted_cpu_s: float = 0.0
    num_new: int = 0
    num_resolved: int = 0

    def __add__(self, other: "CheckFigures") -> "CheckFigures":
        """Of both together."""
        return CheckFigures(*map(add, astuple(self), astuple(other)))

    def __str__(self) -> str:
        """For a person, in milliseconds."""
        return (
            f"{self.num_used + self.num_wasted} checks: {self.num_used} used, "
            f"{self.used_cpu_s * 1e3:.0f} ms of processor time; {self.num_wasted} wasted, "
            f"{self.wasted_cpu_s * 1e3:.0f} ms; {self.num_new} new, {self.num_resolved} resolved"
        )


def sum_up(runs: Sequence[CheckRun]) -> CheckFigures:
    """The figures of all these runs."""
    used = [run for run in runs if not run.reason]
    wasted = [run for run in runs if run.reason]
    return CheckFigures(
        len(used),
        len(wasted),
        sum(run.cpu_s for run in used),
        sum(run.cpu_s for run in wasted),
        sum(run.num_new for run in used),
        sum(run.num_resolved for run in used),
    )
