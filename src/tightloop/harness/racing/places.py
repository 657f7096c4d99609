"""Where candidates work: each in a fork of the workspace, in a locked sandbox of its own.

With bubblewrap over an overlay the sandboxes wait, and a fork shows in one at the path of the
workspace itself (``sandbox.candidates``). Elsewhere each is opened on its fork, which then has a
path of its own.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tightloop.harness.thread import Thread
from tightloop.sandbox.aside import FreshAside
from tightloop.sandbox.candidates import CandidatePool
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Place:
    """One candidate's. ``shown_at`` is the path under which its commands and its model see it."""

    workspace: Workspace
    sandbox: PersistentSandbox
    shown_at: Path


class Places(Protocol):
    """As many as are wanted, one after the other or at once."""

    def take(self) -> AbstractAsyncContextManager[Place]:
        """A fork of the workspace's present state; gone when the block is left, with its processes.

        Nothing may be writing to the workspace at the start. Raises SandboxError.
        """


class _Pooled:
    def __init__(self, pool: CandidatePool, shown_at: Path) -> None:
        self._pool = pool
        self._shown_at = shown_at

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Place]:
        async with self._pool.candidate() as candidate:
            yield Place(candidate.workspace, candidate.sandbox, self._shown_at)


class _Opened:
    def __init__(self, workspace: Workspace, aside: FreshAside) -> None:
        self._workspace = workspace
        self._aside = aside

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Place]:
        [fork] = await self._workspace.fork()
        try:
            async with self._aside.on(fork) as sandbox:
                path = self._workspace.path if self._aside.has_same_path else fork.path
                yield Place(fork, sandbox, path)
        finally:
            await fork.discard()


async def open_places(stack: AsyncExitStack, thread: Thread, num_waiting: int) -> Places:
    """Places for the conversation's candidates, closed with the stack; so many wait ready.

    Raises SandboxError when no isolation can be had.
    """
    workshop, workspace = thread.workshop, thread.workspace
    if workshop.sandbox.kind == "bubblewrap" and workspace.layers is not None:
        pool = CandidatePool(workspace, workshop.policy, size=num_waiting, source=workshop.source)
        stack.push_async_callback(pool.close)
        try:
            await pool.start()
        except SandboxError:
            pass  # no mounts of its own: each is opened when it is wanted
        else:
            return _Pooled(pool, workspace.path)
    kind = workshop.sandbox.kind
    aside = FreshAside(
        workshop.policy, workshop.open_one, kind, has_warm_tests=workshop.policy.warm_tests
    )
    return _Opened(workspace, aside)
