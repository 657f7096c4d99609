"""Places to try something in a copy of a workspace, while the workspace itself is in use."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from tightloop.sandbox.interface import Command, Policy
from tightloop.sandbox.places import hidden_directories, is_below
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.workspace import Workspace

Open = Callable[[Policy], Awaitable[PersistentSandbox]]
"""``isolation.open_sandbox`` with all but the policy settled."""


class Aside(Protocol):
    """Where commands run on a fork of one workspace, as if it were that workspace."""

    @property
    def is_alive(self) -> bool:
        """Whether there can be another use, as far as is known."""

    def on(self, fork: Workspace) -> AbstractAsyncContextManager[PersistentSandbox]:
        """A sandbox that shows the fork; leaving ends all its processes, not the fork."""

    async def close(self) -> None:
        """Nothing is left. May be called twice."""


class FreshAside:
    """An ``Aside`` that starts a new isolation each time, with nothing resident in it but a warm test
    process where that is wanted.

    With bubblewrap the fork has the workspace's own path inside; elsewhere it has another one,
    and output that names files does, too: ``has_same_path``.
    """

    def __init__(
        self, policy: Policy, open_one: Open, kind: str, *, has_warm_tests: bool = False
    ) -> None:
        """``policy`` is that of the workspace's own sandbox, of the given ``kind``."""
        self.has_same_path = kind == "bubblewrap"
        self._policy = replace(policy, warm_tests=has_warm_tests)
        self._open = open_one

    @property
    def is_alive(self) -> bool:
        """Always: nothing is kept between uses."""
        return True

    @asynccontextmanager
    async def on(self, fork: Workspace) -> AsyncIterator[PersistentSandbox]:
        """See ``Aside.on``. Raises SandboxError when no isolation can be had."""
        if self.has_same_path:
            policy = replace(self._policy, shown_from=fork.path)
        else:
            moved = tuple(
                fork.path / path.relative_to(self._policy.workspace)
                if path.is_relative_to(self._policy.workspace)
                else path
                for path in self._policy.protected
            )
            old, new = str(self._policy.workspace), str(fork.path)
            variables = {
                name: value.replace(old, new) for name, value in self._policy.environment.items()
            }
            policy = replace(
                self._policy, workspace=fork.path, protected=moved, environment=variables
            )
        sandbox = await self._open(policy)
        try:
            yield sandbox
        finally:
            await sandbox.close()

    async def close(self) -> None:
        """Nothing is kept between uses."""


class RenewedAside:
    """An ``Aside`` that is opened at its first use, and anew when it has ended."""

    def __init__(self, open_one: Callable[[], Awaitable[Aside]]) -> None:
        self._open = open_one
        self._aside: Aside | None = None
        self._lock = asyncio.Lock()

    @property
    def is_alive(self) -> bool:
        """Whether the next use finds it open."""
        return self._aside is not None and self._aside.is_alive

    async def ready(self) -> Aside:
        """It is open. Raises what opening raises."""
        async with self._lock:
            if self._aside is None or not self._aside.is_alive:
                await self._end()
                self._aside = await self._open()
            return self._aside

    @asynccontextmanager
    async def on(self, fork: Workspace) -> AsyncIterator[PersistentSandbox]:
        """See ``Aside.on``."""
        aside = await self.ready()
        async with aside.on(fork) as sandbox:
            yield sandbox

    async def close(self) -> None:
        """See ``Aside.close``."""
        async with self._lock:
            await self._end()

    async def _end(self) -> None:
        aside, self._aside = self._aside, None
        if aside is not None:
            await aside.close()


_PASSED_OVER = ("pytest-of-*", "tightloop-probe-*")


def scratch_command(policy: Policy) -> Command:
    """Lists what lies in a sandbox's writable places outside the workspace.

    Not pytest's directory for temporary files, which each run makes anew, and not that of a warm
    test process, which comes and goes by itself. Equal output before and after tells that commands
    have left nothing there.
    """
    words = [
        "find",
        *_outermost([*hidden_directories(policy), Path("/dev/shm")]),
        "-xdev",
        "-path",
        str(policy.workspace),
        "-prune",
        "-o",
    ]
    for name in _PASSED_OVER:
        words += ["-name", name, "-prune", "-o"]
    words += ["-type", "d", "-printf", "%p/\\n", "-o", "-printf", "%p %s %T@\\n"]
    return Command(argv=words, timeout_s=10.0)


def _outermost(places: list[Path]) -> list[str]:
    """Existing places that lie in no other: within a hidden place another one need not exist inside."""
    found = [place for place in dict.fromkeys(places) if os.path.isdir(place)]
    return [
        str(place)
        for place in found
        if not any(place != other and is_below(place, other) for other in found)
    ]
