"""Fresh workspace, fresh isolation, command: all three within what the command itself takes.

For candidates that are tried side by side. Their sandboxes are started ahead and wait for a
workspace (``slots.py``); a candidate is then a fork, four mounts and a message. What is paid in
advance is the start of each sandbox and the directories of the fork; it is paid again, while
nobody waits, after each use.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from tightloop.sandbox.interface import Command, CommandResult, Policy
from tightloop.sandbox.pool import Reserve
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.slots import Twin, open_twin
from tightloop.sandbox.workspace import Workspace
from tightloop.trace.clock import now_ns


@dataclass(frozen=True, slots=True)
class Candidate:
    """A fork, and the sandbox that shows it at the path of the workspace that it was made of.

    ``workspace`` is for our own file tools, ``diff`` and ``take``; keep it by forking it again.
    """

    workspace: Workspace
    sandbox: PersistentSandbox


class CandidatePool:
    """Candidates of one workspace. ``size`` sandboxes wait; more are started when they are wanted."""

    def __init__(
        self,
        workspace: Workspace,
        policy: Policy,
        *,
        size: int,
        source: Mapping[str, str] | None = None,
    ) -> None:
        """``policy`` and ``source`` are as for ``open_twin``."""

        async def open_one() -> Twin:
            if workspace.num_prepared_forks < size:
                await workspace.prepare_forks()
            return await open_twin(workspace, policy, source=source)

        self._workspace = workspace
        self._reserve = Reserve(open_one, size=size)
        self._discarding: set[asyncio.Task[None]] = set()

    @property
    def num_ready(self) -> int:
        """How many wait now."""
        return self._reserve.num_ready

    @property
    def num_taken_cold(self) -> int:
        """How many had to be started while somebody waited."""
        return self._reserve.num_taken_cold

    async def start(self) -> None:
        """One is ready, the others are on their way. Raises what ``open_twin`` raises."""
        await self._reserve.start()

    async def filled(self) -> None:
        """As many as can be had are ready."""
        await self._reserve.filled()

    @asynccontextmanager
    async def candidate(self) -> AsyncIterator[Candidate]:
        """A fork of the workspace's present state in a sandbox of its own, until the block is left.

        Both are gone afterwards, without anybody waiting for it. Nothing may be writing to the
        workspace at the start. Raises SandboxError when the pool is not running.
        """
        async with self._reserve.take() as twin:
            [fork] = await self._workspace.fork()
            try:
                async with twin.on(fork, is_last=True) as sandbox:
                    yield Candidate(fork, sandbox)
            finally:
                self._end(twin, fork)

    async def run(
        self, command: Command, on_output: Callable[[bytes], None] | None = None
    ) -> CommandResult:
        """Run one command in a candidate of its own; its time includes the fork and the mounts."""
        started_ns = now_ns()
        async with self.candidate() as candidate:
            result = await candidate.sandbox.run(command, on_output)
        return replace(result, started_ns=started_ns, how="single-use")

    def _end(self, twin: Twin, fork: Workspace) -> None:
        async def end() -> None:
            await twin.close()  # first: its processes may be writing to the fork
            await fork.discard()

        task = asyncio.get_running_loop().create_task(end(), name="discard")
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)

    async def close(self) -> None:
        """Every sandbox has ended and every fork is discarded. May be called twice."""
        await self._reserve.close()
        await self._workspace.drop_prepared_forks()
        while self._discarding:
            await asyncio.wait(self._discarding)
