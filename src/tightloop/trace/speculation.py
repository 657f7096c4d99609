"""What running tests ahead of the question came to: the only definitions of used and wasted.

A try is one command run in a copy of the workspace before anybody asked for it. It is **used** when
its result was given out as the answer to exactly that command on exactly that tree, else **wasted**,
also when it was cut short. Its processor time is what all its processes took, start of an
isolation of its own included, in ticks of the kernel (10 ms as a rule). What it **saved** is how
long its command had run before it was asked for: that long a run begun only then would have ended
later, if it takes as long as the one ahead did.
"""

from collections.abc import Sequence

from msgspec import Struct


class Try(Struct, frozen=True):
    """One try. Clock readings in ns; ``asked_ns`` is 0 when nobody asked, ``ran_ns`` when the
    command was not begun. ``reason`` says why it was wasted, empty for a used one."""

    command: str
    is_used: bool
    reason: str
    started_ns: int
    ran_ns: int
    ended_ns: int
    asked_ns: int
    cpu_s: float

    @property
    def saved_s(self) -> float:
        """Seconds saved, see above; 0 for a wasted one."""
        if not self.is_used or not self.ran_ns:
            return 0.0
        return max(0, min(self.asked_ns, self.ended_ns) - self.ran_ns) / 1e9


class Speculation(Struct, frozen=True):
    """Several tries together. ``num_used`` and ``num_wasted`` add up to all of them."""

    num_used: int = 0
    num_wasted: int = 0
    used_cpu_s: float = 0.0
    wasted_cpu_s: float = 0.0
    saved_s: float = 0.0

    def __add__(self, other: "Speculation") -> "Speculation":
        return Speculation(
            self.num_used + other.num_used,
            self.num_wasted + other.num_wasted,
            self.used_cpu_s + other.used_cpu_s,
            self.wasted_cpu_s + other.wasted_cpu_s,
            self.saved_s + other.saved_s,
        )

    def __str__(self) -> str:
        """For a person, in milliseconds."""
        tried = self.num_used + self.num_wasted
        return (
            f"{tried} run ahead: {self.num_used} used, {self.saved_s * 1e3:.0f} ms saved, "
            f"{self.used_cpu_s * 1e3:.0f} ms of processor time; {self.num_wasted} wasted, "
            f"{self.wasted_cpu_s * 1e3:.0f} ms"
        )


def sum_up(tries: Sequence[Try]) -> Speculation:
    """The figures of all these tries."""
    used = [one for one in tries if one.is_used]
    wasted = [one for one in tries if not one.is_used]
    return Speculation(
        len(used),
        len(wasted),
        sum(one.cpu_s for one in used),
        sum(one.cpu_s for one in wasted),
        sum(one.saved_s for one in used),
    )
