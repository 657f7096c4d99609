"""Messages of the user for the turn that is running.

A steer is *accepted* at once, and *delivered* with the next request of the turn, after the outputs of
the calls before it. A turn does not end while one waits. When it ends all the same (a failure, a
limit, an interruption), what waits is *deferred*: it goes out with the next turn's message, before
it. So none is lost and none is sent twice. Source: ``turn/steer`` of the Codex app server.
"""

import itertools
from collections import deque
from dataclasses import dataclass

ACCEPTED, DELIVERED, DEFERRED, WITHDRAWN = "accepted", "delivered", "deferred", "withdrawn"


@dataclass(slots=True, eq=False)
class Steer:
    """One message, and what became of it. ``step`` is the request of the turn that carried it,
    counted from 1; None before."""

    id: str
    text: str
    state: str = ACCEPTED
    step: int | None = None


class Inbox:
    """The steers of one conversation, in order."""

    def __init__(self) -> None:
        self._waiting: deque[Steer] = deque()
        self._numbers = itertools.count()

    def __bool__(self) -> bool:
        """Whether one waits."""
        return bool(self._waiting)

    def add(self, text: str) -> Steer:
        """Accept one."""
        steer = Steer(f"steer_{next(self._numbers)}", text)
        self._waiting.append(steer)
        return steer

    def take(self, step: int) -> list[Steer]:
        """All that wait, which go out with this request."""
        taken = list(self._waiting)
        self._waiting.clear()
        for steer in taken:
            steer.state, steer.step = DELIVERED, step
        return taken

    def defer(self) -> list[Steer]:
        """The turn has ended; those that still wait, which go out with the next."""
        for steer in self._waiting:
            steer.state = DEFERRED
        return list(self._waiting)

    def withdraw(self, steer: Steer) -> bool:
        """Take one back; False when it has gone out."""
        if steer not in self._waiting:
            return False
        self._waiting.remove(steer)
        return True
