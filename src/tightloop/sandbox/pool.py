"""Started sandboxes that wait for one use each.

For commands that must not see each other, and for candidates that are tried side by side: the
isolation is entered while nobody waits, a command then costs what it costs in a persistent
sandbox, and what it leaves behind is ended with its sandbox.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

from tightloop.sandbox.interface import Command, CommandResult, SandboxError
from tightloop.sandbox.session import PersistentSandbox
from tightloop.trace.clock import now_ns

_CALM_S = 0.05


class Closable(Protocol):
    """What can wait in a reserve."""

    @property
    def is_alive(self) -> bool:
        """Whether it can be used, as far as is known."""

    async def close(self) -> None:
        """It has ended."""


Kept = TypeVar("Kept", bound=Closable)


class Reserve(Generic[Kept]):
    """Keeps ``size`` started things ready; ``open_one`` must return one of its own.

    The next is started in the background once one is given back, or has been away for a while.
    When none is ready a new one is opened on the spot, so the reserve never makes a command fail
    that would have worked without it.
    """

    def __init__(self, open_one: Callable[[], Awaitable[Kept]], *, size: int) -> None:
        if size < 1:
            raise ValueError(f"a pool needs a size of 1 or more, got {size}")
        self._open_one = open_one
        self._size = size
        self._ready: deque[Kept] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._num_starting = 0
        self._is_open = False
        self.num_taken_ready = 0
        """How many were ready when they were wanted."""
        self.num_taken_cold = 0
        """How many had to be started while somebody waited."""

    @property
    def num_ready(self) -> int:
        """How many wait now."""
        return len(self._ready)

    async def start(self) -> None:
        """One is ready, the others are on their way. Raises SandboxError when none can be had."""
        self._is_open = True
        self._ready.append(await self._open_one())
        self._refill()

    async def filled(self) -> None:
        """As many as can be had are ready."""
        while starting := [task for task in self._tasks if task.get_name() == "refill"]:
            await asyncio.wait(starting)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Kept]:
        """A fresh sandbox for the time of the ``async with``; it is closed behind it.

        The closing goes on in the background. Raises SandboxError when the pool is closed, or
        when none is ready and none can be started.
        """
        if not self._is_open:
            raise SandboxError("the pool of sandboxes is not running: start it first")
        sandbox = self._next_ready()
        # Not at once: starting one takes the processor from the command that is about to run.
        asyncio.get_running_loop().call_later(_CALM_S, self._refill)
        if sandbox is None:
            self.num_taken_cold += 1
            sandbox = await self._open_one()
        try:
            yield sandbox
        finally:
            if self._is_open:
                self._spawn(sandbox.close(), "retire")
                self._refill()
            else:
                await sandbox.close()

    async def close(self) -> None:
        """Every sandbox is closed and every task has ended. May be called twice.

        Whoever still uses one closes it as usual.
        """
        self._is_open = False
        for task in self._tasks:
            if task.get_name() == "refill":
                task.cancel()
        while self._ready:
            self._spawn(self._ready.popleft().close(), "retire")
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._num_starting = 0  # a task that was cancelled at once could not say so

    def _next_ready(self) -> Kept | None:
        """One that still lives: the machine may have ended it for want of memory."""
        while self._ready:
            sandbox = self._ready.popleft()
            if sandbox.is_alive:
                self.num_taken_ready += 1
                return sandbox
            self._spawn(sandbox.close(), "retire")
        return None

    def _refill(self) -> None:
        while self._is_open and len(self._ready) + self._num_starting < self._size:
            self._num_starting += 1
            self._spawn(self._start_one(), "refill")

    async def _start_one(self) -> None:
        try:
            sandbox = await self._open_one()
        except (SandboxError, OSError):
            return  # whoever takes one is told: it is tried again then
        finally:
            self._num_starting -= 1
        if self._is_open:
            self._ready.append(sandbox)
        else:
            await sandbox.close()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_end)

    def _on_task_end(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler(
                {"message": "a sandbox of the pool did not close", "exception": error}
            )


class SandboxPool(Reserve[PersistentSandbox]):
    """Started sandboxes, a fresh one for each command."""

    async def run(
        self, command: Command, on_output: Callable[[bytes], None] | None = None
    ) -> CommandResult:
        """Run one command in a sandbox of its own; see ``Sandbox.run``."""
        started_ns = now_ns()
        async with self.take() as sandbox:
            result = await sandbox.run(command, on_output)
        return replace(result, started_ns=started_ns, how="single-use")
