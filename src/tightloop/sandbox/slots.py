"""Sandboxes that get their workspace late: started ahead, given a fork when there is one.

A slot is an empty place on the host whose mounts also appear in a sandbox that was started with it
(shared subtree: mount_namespaces(7)). So an overlay that is mounted there later is there inside at
once, and gone at once when it is unmounted; the sandbox and its warm test process stay. Inside, it
is seen at the path of the workspace that it is a fork of.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tightloop.sandbox import layouts, locks, mounts, places
from tightloop.sandbox.completion import to_its_end
from tightloop.sandbox.interface import Policy, SandboxError
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.workspace import Workspace


class Slot:
    """One place for a tree. ``path`` is where it shows on the host.

    Nothing is visible elsewhere on the host: all of it lies below a mount that is private.
    """

    def __init__(self, state_dir: Path, name: str) -> None:
        """Raises OSError when this process may not mount."""
        self._state_dir = state_dir
        self._root = state_dir / layouts.SLOTS / secrets.token_hex(8)
        self._place = self._root / "place"
        self._staging = self._root / "staging"
        self.path = self._place / name
        with locks.locked(state_dir / "lock"):  # nobody may take it for one that was left
            self._root.mkdir(parents=True)
            lock_fd = locks.acquire(self._root / "lock")
        assert lock_fd is not None
        self._lock_fd = lock_fd
        try:
            self.path.mkdir(parents=True)
            self._staging.mkdir()
            mounts.bind(self._root, self._root)
            mounts.set_private(self._root)
            mounts.bind(self._place, self._place)
            mounts.set_shared(self._place)
        except BaseException:
            self.close()
            raise

    def show(self, policy: Policy) -> None:
        """The slot shows the policy's workspace, over what it showed before.

        All at once and complete: what is protected has never been writable there, and with
        ``is_read_only`` nothing is. Otherwise nothing may be writing to the workspace meanwhile: what
        is protected is mounted by its name, and a link put there would have our own mounts changed.
        Raises SandboxError when a protected path goes through a link.
        """
        protected = [] if policy.is_read_only else places.protected_paths(policy)
        protected = [path.relative_to(policy.workspace) for path in protected]
        mounts.bind(policy.workspace, self._staging)
        try:
            mounts.set_private(self._staging)  # else the workspace itself would get what follows
            if policy.is_read_only:
                mounts.set_read_only(self._staging)
            above = {parent for path in protected for parent in path.parents} - {Path()}
            for directory in sorted(above):  # it cannot be renamed then
                mounts.bind(self._staging / directory, self._staging / directory)
            for path in protected:
                mounts.bind(self._staging / path, self._staging / path)
                mounts.set_read_only(self._staging / path)
            mounts.bind(self._staging, self.path)
        finally:
            mounts.unmount(self._staging)

    def withdraw(self) -> None:
        """The slot shows what it showed before the last ``show``."""
        mounts.unmount(self.path)

    def close(self) -> None:
        """Nothing is mounted and no directory is left. May be called twice."""
        if self._lock_fd >= 0:
            layouts.throw_away_slot(self._root, self._state_dir)
            os.close(self._lock_fd)
            self._lock_fd = -1


class Twin:
    """A sandbox beside that of a workspace, for one fork of it after another.

    ``sandbox`` serves commands during ``on`` only. Between two uses it shows the workspace, not
    writable, so that its warm test process can go on getting ready.
    """

    kind = "bubblewrap"

    def __init__(
        self, workspace: Workspace, policy: Policy, slot: Slot, sandbox: PersistentSandbox
    ) -> None:
        self.sandbox = sandbox
        self._workspace = workspace
        self._policy = policy
        self._slot = slot
        self._lock = asyncio.Lock()

    @property
    def is_alive(self) -> bool:
        """Whether there can be another use, as far as is known."""
        return self.sandbox.is_alive

    @asynccontextmanager
    async def on(
        self, fork: Workspace, *, is_last: bool = False
    ) -> AsyncIterator[PersistentSandbox]:
        """The sandbox, with the fork at the path of the workspace, until the block is left.

        Then every process of this use is gone, and every file it made outside of the fork. One use
        at a time, others wait. Waits for the warm test process if it is not ready yet. Discard the
        fork afterwards. With ``is_last`` nothing is cleared: ``close`` must follow. Raises
        SandboxError for what is no fork of the workspace, and when the sandbox is over.
        """
        async with self._lock:
            if fork.layers is None or fork.layers[0] != self._base():
                raise SandboxError(
                    f"{str(fork.path)!r} is not a fork of {str(self._workspace.path)!r}"
                )
            await self.sandbox.warm_tests_ready()
            if not self.is_alive:
                raise SandboxError("the sandbox has ended: open another one")
            try:
                self._slot.show(_moved(self._policy, fork.path))
            except OSError as error:
                raise SandboxError(f"{str(fork.path)!r} cannot be shown: {error}") from error
            try:
                self.sandbox.refresh()
                yield self.sandbox
            finally:
                if not is_last:
                    await to_its_end(self._leave())

    def _base(self) -> Path | None:
        return self._workspace.layers and self._workspace.layers[0]

    async def _leave(self) -> None:
        """A sandbox that cannot be brought back is closed: ``is_alive`` says so."""
        try:
            await self.sandbox.clear()
        except SandboxError:
            await self.sandbox.close()
        finally:
            self._slot.withdraw()
        self.sandbox.refresh()

    async def close(self) -> None:
        """The sandbox has ended and its slot is gone. May be called twice."""
        await self.sandbox.close()
        self._slot.close()


async def open_twin(
    workspace: Workspace, policy: Policy, *, source: Mapping[str, str] | None = None
) -> Twin:
    """A started sandbox for forks of the workspace.

    ``policy`` and ``source`` are what a sandbox on the workspace itself is opened with. Raises
    SandboxError when the workspace is no overlay, this process may not mount, or bubblewrap cannot
    be used; the text names the remedy.
    """
    if workspace.layers is None:
        raise SandboxError(f"a sandbox for forks needs an overlay: {workspace.reason}")
    try:
        slot = Slot(workspace.state_dir, workspace.path.name)
    except OSError as error:
        raise SandboxError(
            f"a sandbox for forks needs mounts of its own: {error.strerror}"
        ) from error
    sandbox = None
    try:
        slot.show(replace(policy, is_read_only=True))
        hidden = (workspace.state_dir / "workspaces", workspace.state_dir / layouts.SLOTS)
        late = replace(policy, shown_from=slot.path, hidden=(*policy.hidden, *hidden))
        sandbox = await open_sandbox(late, kind=Twin.kind, source=source)
        await sandbox.remember([*map(str, places.hidden_directories(late)), "/dev"])
    except BaseException as error:
        if sandbox is not None:
            await sandbox.close()
        slot.close()
        if isinstance(error, OSError):
            raise SandboxError(f"a sandbox for forks: {error}") from error
        raise
    return Twin(workspace, policy, slot, sandbox)


def _moved(policy: Policy, workspace: Path) -> Policy:
    """The same, for another directory."""
    protected = []
    for path in policy.protected:
        with suppress(ValueError):
            path = path.relative_to(policy.workspace)
        protected.append(workspace / path)
    return replace(policy, workspace=workspace, protected=tuple(protected))
