"""Ways to work on one task: once, again from the beginning while it fails, or several at once.

All three have the same small interface, so that they can be compared with equal budgets, and
whoever talks to the user need not care which one it is.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from tightloop.agent.turn import TurnResult
from tightloop.harness.racing.contest import Contest, Rules, open_contest
from tightloop.harness.thread import Thread
from tightloop.protocol.websocket_mode import MAX_IN_FLIGHT

SINGLE, RETRY, RACE = "single", "retry", "race"
MAX_CANDIDATES = 64


class Mode(Protocol):
    """One conversation's. One turn at a time."""

    name: str

    async def run_turn(self, prompt: str, **more: Any) -> TurnResult:
        """Work on ``prompt``; ``more`` as for ``Thread.run_turn``. The conversation and its workspace hold
        the outcome, and only that one.

        Cancelling it ends all of it and leaves no process and no mount behind.
        """

    def steer(self, text: str) -> None:
        """A message for whoever works on the turn; for the next one when none runs."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """``num`` candidates at most, ``at_once`` of them at a time (None: by the number of cores).

    ``temperature`` is asked for all candidates but the first, which is the unmodified one.
    Raises ValueError for a mode or a number that there is not.
    """

    mode: str = SINGLE
    num: int = 1
    at_once: int | None = None
    temperature: float = 0.8

    def __post_init__(self) -> None:
        if self.mode not in (SINGLE, RETRY, RACE):
            raise ValueError(f"unknown mode {self.mode!r}: known are single, retry, race")
        if not 1 <= self.num <= MAX_CANDIDATES:
            raise ValueError(f"1 to {MAX_CANDIDATES} candidates are possible, got {self.num}")
        if self.at_once is not None and self.at_once < 1:
            raise ValueError(f"at least one candidate must be at work, got {self.at_once}")

    @property
    def rules(self) -> Rules:
        """How the contest goes."""
        num = 1 if self.mode == SINGLE else self.num
        at_once = 1 if self.mode == RETRY else min(num, self.at_once or _most_at_once())
        return Rules(self.mode, num, min(at_once, MAX_IN_FLIGHT - 1), self.temperature)


class Single:
    """The conversation's own agent in its own workspace."""

    name = SINGLE

    def __init__(self, thread: Thread) -> None:
        self._thread = thread

    async def run_turn(self, prompt: str, **more: Any) -> TurnResult:
        """See ``Mode.run_turn``."""
        return await self._thread.run_turn(prompt, **more)

    def steer(self, text: str) -> None:
        """See ``Mode.steer``."""
        self._thread.agent.steer(text)


@asynccontextmanager
async def open_mode(thread: Thread, wanted: Wanted) -> AsyncIterator[Mode]:
    """The mode, for any number of turns. A planner comes from the thread's settings.

    Raises SandboxError when no isolation can be had, UsageError when a planner cannot be reached.
    """
    settings = thread.settings
    if settings.planner is None:
        if wanted.mode == SINGLE:
            yield Single(thread)
            return
        async with open_contest(thread, wanted.rules) as contest:
            yield contest
        return
    from tightloop.harness.racing.planning import open_planner

    async with open_contest(thread, wanted.rules) as contest, open_planner(thread) as planner:
        contest.adviser = planner
        yield contest


def _most_at_once() -> int:
    """Models answer elsewhere, as a rule; tests want a core each, if not all the time."""
    return 2 * len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4


__all__ = ["RACE", "RETRY", "SINGLE", "Contest", "Mode", "Single", "Wanted", "open_mode"]
