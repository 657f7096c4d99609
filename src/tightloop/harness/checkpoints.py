"""Keeps the work of a conversation on disk beside its record, a little after each call that ended.

Written in the background, while the model already answers; never more often than needed to lose
no more than the last moments of a process that is killed.
"""

import asyncio
import contextlib
from collections.abc import Sequence

from tightloop.harness.record import Record
from tightloop.sandbox.entries import Change
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.workspace import Workspace

PAUSE_S = 0.25
"""Between two of them: reading what has changed takes milliseconds of a core."""


class Checkpoints:
    """For one workspace and its record, which holds ``written``; ``close`` writes the last."""

    def __init__(
        self, workspace: Workspace, record: Record, written: Sequence[Change] = ()
    ) -> None:
        self._workspace = workspace
        self._record = record
        self._written = list(written)
        self._is_due = False
        self._closing = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def touch(self) -> None:
        """Something may have changed."""
        self._is_due = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._go_on(), name="checkpoint")

    async def close(self) -> None:
        """Nothing more will change."""
        self._closing.set()
        if self._task is not None:
            await asyncio.wait([self._task])  # a thread of its that writes cannot be stopped
        if self._record.is_there:
            await self._write()

    async def flush(self) -> None:
        """What has changed so far is on disk."""
        if self._record.is_there:
            await self._write()

    async def _go_on(self) -> None:
        while self._is_due and not self._closing.is_set():
            await self._write()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), PAUSE_S)

    async def _write(self) -> None:
        """Keep the present state. A workspace that cannot be read keeps its last checkpoint."""
        async with self._writing:
            self._is_due = False
            covered, unsure = self._record.answered, set(self._record.running)
            with contextlib.suppress(SandboxError, OSError):
                changes = await self._workspace.changes(is_pending=True)
                unsure.update(self._record.running, self._record.answered)
                unsure.difference_update(covered)
                if changes == self._written:
                    self._record.checkpoint(covered)
                    return
                await asyncio.to_thread(self._record.write_changes, changes, covered, unsure)
                self._written = changes
