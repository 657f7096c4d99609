"""What is new in the results of checks: each fact once, and once that it is resolved. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tightloop.agent.events import CHECK
from tightloop.harness.checks.formats import Fact

MAX_SHOWN = 10
"""Facts of one check in one message, the rest counted."""


@dataclass(frozen=True, slots=True)
class News:
    """What a run of one check found that the run before had not, and what it no longer found."""

    name: str
    new: tuple[Fact, ...]
    resolved: tuple[Fact, ...]

    def as_text(self) -> str:
        """For the model: a few lines at most."""
        parts = []
        if self.new:
            parts.append(f"{self.name}: {len(self.new)} new since your change:{_shown(self.new)}")
        if self.resolved:
            parts.append(f"{self.name}: {len(self.resolved)} resolved:{_shown(self.resolved)}")
        return f"{CHECK} " + "\n".join(parts)


@dataclass(slots=True)
class _State:
    """The last result of one check, and what was told: by key, and how often it was there before."""

    counts: Counter[str]
    told: dict[str, tuple[Fact, int]]


class Findings:
    """The state of all checks of one conversation."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}

    def has_baseline(self, name: str) -> bool:
        """Whether there is something to compare the check's next result with."""
        return name in self._states

    def num_open(self, name: str) -> int:
        """How many facts the last result had; 0 when there is none."""
        return self._states[name].counts.total() if name in self._states else 0

    def set_baseline(self, name: str, facts: Sequence[Fact]) -> None:
        """This is how things stand, and nobody's news."""
        counts = Counter(fact.key for fact in facts)
        known = self._states.get(name)
        told = known.told if known is not None else {}
        still = {key: value for key, value in told.items() if counts[key] > value[1]}
        self._states[name] = _State(counts, still)

    def take(self, name: str, facts: Sequence[Fact], *, is_whole: bool = True) -> News | None:
        """Compare with the last result; None when there is nothing to tell.

        A fact that was there before is not new at another line; one more of the same kind is. Where
        the result is not ``is_whole``, what is missing in it is not resolved.
        """
        state = self._states.get(name)
        counts = Counter(fact.key for fact in facts)
        if state is not None and not is_whole:
            counts |= state.counts
        if state is None:
            self.set_baseline(name, facts)
            return None
        left = counts - state.counts  # how many more there are of each
        new = []
        for fact in reversed(facts):  # of several of a kind the last in the file is as good as any
            if left[fact.key] > 0:
                left[fact.key] -= 1
                new.append(fact)
                state.told.setdefault(fact.key, (fact, state.counts[fact.key]))
        gone = [key for key, (_, before) in state.told.items() if counts[key] <= before]
        resolved = [state.told.pop(key)[0] for key in gone]
        state.counts = counts
        return News(name, tuple(reversed(new)), tuple(resolved)) if new or resolved else None


def _shown(facts: Sequence[Fact]) -> str:
    """A single one on the same line: that is what a person sees of a message in brief."""
    if len(facts) == 1:
        return f" {facts[0]}"
    more = f"\n  and {len(facts) - MAX_SHOWN} more" if len(facts) > MAX_SHOWN else ""
    return "".join(f"\n  {fact}" for fact in facts[:MAX_SHOWN]) + more
