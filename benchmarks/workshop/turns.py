"""Whose turn it is: several programs are measured round by round, one at a time."""

import asyncio
from collections import deque
from collections.abc import Sequence


class Turns:
    """Every member has one turn a round, in the order given. One that leaves is passed over."""

    def __init__(self, names: Sequence[str]) -> None:
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"turns need distinct names, got {list(names)}")
        self._waiting = deque(names)
        self._has_changed = asyncio.Condition()

    async def take(self, name: str) -> None:
        """Wait for this member's turn. Raises ValueError for one that has left."""
        async with self._has_changed:
            if name not in self._waiting:
                raise ValueError(f"{name!r} takes no turns; {list(self._waiting)} do")
            await self._has_changed.wait_for(lambda: self._waiting[0] == name)

    async def give(self, name: str) -> None:
        """The turn is over; the next member's begins. Nothing happens when it was not this one's."""
        async with self._has_changed:
            if self._waiting and self._waiting[0] == name:
                self._waiting.rotate(-1)
                self._has_changed.notify_all()

    async def leave(self, name: str) -> None:
        """No more turns for this member. May be called twice."""
        async with self._has_changed:
            if name in self._waiting:
                self._waiting.remove(name)
                self._has_changed.notify_all()
