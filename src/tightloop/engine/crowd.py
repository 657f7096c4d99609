"""Who goes on when the responses under way fill the context together.

Each may be as long as the window, so together they can need more cells than there are. Then the
younger ones make way: one whose evaluation finds no room gives its sequence back and waits until
somebody has ended, then reads its tokens again and goes on where it was. The oldest never does, so
there is always one that gets to its end.
"""

from collections.abc import Generator


class Crowd:
    """The jobs that use the context, oldest first."""

    def __init__(self) -> None:
        self.members: list[Place] = []
        self.num_left = 0

    def enter(self) -> "Place":
        """A place at the end; ``leave`` it in any case."""
        place = Place(self)
        self.members.append(place)
        return place


class Place:
    """One job's place. ``holds`` tells whether it has cells of the context just now."""

    def __init__(self, crowd: Crowd) -> None:
        self.holds = True
        self._crowd = crowd

    @property
    def is_oldest(self) -> bool:
        """Whether nobody came before who is still there."""
        return self._crowd.members[0] is self

    @property
    def is_alone(self) -> bool:
        """Whether nobody else holds cells that could become free."""
        return not any(place.holds for place in self._crowd.members if place is not self)

    @property
    def num_others(self) -> int:
        """How many others hold cells, and are evaluated in turn with this or in the same step."""
        return sum(place.holds for place in self._crowd.members if place is not self)

    def wait(self) -> Generator[None, None, None]:
        """Return when somebody has left, or when this is the oldest."""
        self.holds = False
        num_left = self._crowd.num_left
        while num_left == self._crowd.num_left and not self.is_oldest:
            yield
        self.holds = True

    def leave(self) -> None:
        """The job has ended."""
        self._crowd.members.remove(self)
        self._crowd.num_left += 1
