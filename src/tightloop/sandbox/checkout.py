"""What a workspace knows of the user's checkout, path by path.

A path's **origin** is what the work on it began from: the base, or what the user made of it since
and the view took over. It is **known** what the checkout holds there: the origin, or what was
applied last. Whatever else it holds was written by the user, and has not been looked at.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tightloop.sandbox.entries import Change, Entry, read_below
from tightloop.sandbox.following import Lookout, is_settled, status_of


@dataclass(frozen=True, slots=True)
class Clash:
    """A path that both sides have changed since ``known``: ``theirs`` is the user's version."""

    path: str
    known: Entry | None
    theirs: Entry | None
    ours: Entry | None


@dataclass(slots=True)
class Checkout:
    """For one workspace; ``told`` holds the versions of the user's that were named as conflicts."""

    base: Path
    lookout: Lookout
    followed: dict[str, Entry | None] = field(default_factory=dict)
    applied: dict[str, Entry | None] = field(default_factory=dict)
    told: dict[str, Entry | None] = field(default_factory=dict)
    _unmoved: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def origin(self, path: str) -> Entry | None:
        """What the work on the path began from."""
        if path in self.followed:
            return self.followed[path]
        return read_below(self.base, path)

    def known(self, path: str) -> Entry | None:
        """What the checkout holds there, as far as it was looked at."""
        return self.applied[path] if path in self.applied else self.origin(path)

    def copy(self) -> "Checkout":
        """For a fork."""
        return Checkout(
            self.base,
            self.lookout.copy(),
            dict(self.followed),
            dict(self.applied),
            dict(self.told),
        )

    def follow(self, path: str, entry: Entry | None) -> None:
        """The user's version is what work on the path goes on from."""
        self.followed[path] = entry
        self.applied.pop(path, None)
        self.told.pop(path, None)
        self._unmoved.pop(path, None)

    def changed_since(self, view: Path) -> Iterable[Change]:
        """Followed paths that the view holds something else at."""
        for path, entry in list(self.followed.items()):  # more may come meanwhile
            status = status_of(view / path)
            if status and self._unmoved.get(path) == status:
                continue
            present = read_below(view, path)
            if present != entry:
                yield Change(path, entry, present)
            elif is_settled(status):
                self._unmoved[path] = status
