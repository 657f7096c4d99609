"""Copy-on-write workspaces: the agent works on its own view, the user's tree stays untouched."""

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tightloop.sandbox import applying, overlay
from tightloop.sandbox.applying import WorkspaceConflict
from tightloop.sandbox.bases import base_for, forget_old, run_git
from tightloop.sandbox.entries import Change, Entry, compare, files_below, read_entry
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.patch_text import unified_diff
from tightloop.sandbox.risks import Risk, risk_of

__all__ = ["Workspace", "WorkspaceConflict", "open_workspace"]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Directories of one workspace. ``lock`` is held while its process lives."""

    root: Path
    view: Path

    @property
    def upper(self) -> Path:
        return self.root / "upper"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def base_name(self) -> Path:
        return self.root / "base"


class Workspace:
    """A private, writable view of a repository.

    ``path`` is where to work, ``kind`` is ``overlay`` or ``copy``, ``reason`` says why it is not
    an overlay. Files that git ignores are not in it.
    """

    def __init__(
        self, repository: Path, base: Path, layout: _Layout, lock_fd: int, kind: str, reason: str
    ) -> None:
        self.repository = repository
        self.kind = kind
        self.reason = reason
        self.path = layout.view
        self._base = base
        self._layout = layout
        self._lock_fd = lock_fd
        os.utime(layout.lock)
        self._copied_ns = layout.lock.stat().st_ctime_ns  # the same clock as that of the files
        self._applied: dict[str, Entry | None] = {}

    async def diff(self, *, include_binary: bool = False) -> str:
        """All changes so far as a patch that ``git apply`` takes in the repository.

        Binary files are only named unless ``include_binary``. On an overlay this costs what
        changed, not what is there.
        """
        changes = await asyncio.to_thread(self._changes)
        return unified_diff(changes, include_binary=include_binary)

    async def changed_files(self) -> list[str]:
        """Relative paths that were added, changed or deleted, in order."""
        return [change.path for change in await asyncio.to_thread(self._changes)]

    async def risks(self) -> list[Risk]:
        """Changes that a person should look at before the repository gets them."""
        changes = await asyncio.to_thread(self._changes)
        return [risk for change in changes if (risk := risk_of(change)) is not None]

    async def special_files(self) -> list[str]:
        """Fifos, sockets and devices that were made; they are never applied."""
        if self.kind != "overlay":
            return []
        return await asyncio.to_thread(overlay.special_files, self._layout.upper)

    async def apply(self, force: bool = False) -> list[str]:
        """The repository holds the result, all of it or nothing; returns the written paths.

        Raises WorkspaceConflict naming the files that were changed there meanwhile, unless
        ``force``. May be called again after more work.
        """
        return await asyncio.to_thread(self._apply, force)

    async def discard(self) -> None:
        """Mounts and directories are gone. May be called twice."""
        if self._lock_fd >= 0:
            await asyncio.to_thread(_remove, self._layout)
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _changes(self) -> list[Change]:
        if self._lock_fd < 0:
            raise SandboxError("the workspace has been discarded")
        if self.kind == "overlay":
            candidates = overlay.changed_candidates(self._base, self._layout.upper)
        else:
            candidates = _copy_candidates(self._base, self.path, self._copied_ns)
        changes = compare(self._base, self.path, candidates)
        return self._without_ignored(changes)

    def _without_ignored(self, changes: list[Change]) -> list[Change]:
        """New files that git would ignore are build results, not part of the work.

        git sees the base alone, never what the workspace made of it: a fifo in the place of a
        ``.gitignore`` would hold it for good.
        """
        new = [change.path for change in changes if change.before is None]
        if not new or not (self._base / ".git").is_dir():
            return changes
        arguments = [f"--git-dir={self._base / '.git'}", f"--work-tree={self._base}"]
        command = [*arguments, "check-ignore", "-z", "--stdin", "--no-index"]
        names = b"".join(b"./" + os.fsencode(name) + b"\0" for name in new)
        # 128: a name lies behind a link; then nothing counts as ignored
        listed = run_git(command, self._base, accepted=(0, 1, 128), text=names)
        ignored = {os.fsdecode(name)[2:] for name in listed.split(b"\0") if name}
        return [change for change in changes if change.path not in ignored]

    def _apply(self, force: bool) -> list[str]:
        changes = {change.path: change for change in self._changes()}
        for path in self._applied:
            if path not in changes:  # applied before, then taken back here
                before = read_entry(self._base / path)
                changes[path] = Change(path, before, read_entry(self.path / path))
        expected = [
            Change(path, self._applied.get(path, change.before), change.after)
            for path, change in sorted(changes.items())
        ]
        written = applying.apply_changes(expected, self.repository, force=force)
        self._applied.update({change.path: change.after for change in expected})
        return written


async def open_workspace(
    repository: Path, *, state_dir: Path, kind: str | None = None
) -> Workspace:
    """A fresh workspace over the repository's present state, uncommitted work included.

    ``kind`` forces ``overlay`` or ``copy``; without it an overlay is used where the kernel allows
    one. Left-overs of processes that died are removed on the way. Raises SandboxError when the
    repository is missing, git fails, or a forced overlay is impossible.
    """
    if kind not in (None, "overlay", "copy"):
        raise SandboxError(f"unknown workspace kind {kind!r}: known are overlay, copy")
    opening = asyncio.ensure_future(asyncio.to_thread(_open, repository, state_dir, kind))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:  # the thread goes on; what it makes has no other owner
        with contextlib.suppress(SandboxError, OSError):
            await (await opening).discard()
        raise


def _open(repository: Path, state_dir: Path, kind: str | None) -> Workspace:
    repository = Path(os.path.realpath(repository))
    if not repository.is_dir():
        raise SandboxError(f"repository {str(repository)!r} is not a directory")
    state_dir = Path(os.path.realpath(state_dir))
    with _state_lock(state_dir):
        applying.recover(repository)
        in_use = _collect(state_dir / "workspaces")
        base = base_for(repository, state_dir / "bases")
        forget_old(state_dir / "bases", in_use | {base.name})
        layout, lock_fd = _lay_out(state_dir / "workspaces", repository.name, base)
    try:
        shown, reason = _fill(base, layout, kind)
    except BaseException:
        _remove(layout)
        os.close(lock_fd)
        raise
    return Workspace(repository, base, layout, lock_fd, shown, reason)


@contextlib.contextmanager
def _state_lock(state_dir: Path) -> Iterator[None]:
    """One process at a time makes bases and collects what is stale."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _lay_out(workspaces: Path, name: str, base: Path) -> tuple[_Layout, int]:
    root = workspaces / secrets.token_hex(8)
    layout = _Layout(root, root / "view" / name)
    for directory in (layout.upper, layout.work, layout.view):
        directory.mkdir(parents=True)
    layout.base_name.write_text(base.name)
    lock_fd = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock_fd, fcntl.LOCK_EX)
    return layout, lock_fd


def _fill(base: Path, layout: _Layout, kind: str | None) -> tuple[str, str]:
    """The view shows the base; returns the kind and why it is not an overlay."""
    reason = "asked for"
    if kind != "copy":
        try:
            overlay.mount(base, layout.upper, layout.work, layout.view)
        except OSError as error:
            if kind == "overlay":
                raise SandboxError(
                    f"no overlay possible: {error.strerror}; run as root or use kind 'copy'"
                ) from error
            reason = str(error.strerror)
        else:
            return "overlay", ""
    command = ["cp", "-a", "--reflink=auto", f"{base}/.", str(layout.view)]
    copied = subprocess.run(command, capture_output=True, check=False)
    if copied.returncode != 0:
        raise SandboxError(f"copying the base failed: {copied.stderr.decode(errors='replace')}")
    return "copy", reason


def _collect(workspaces: Path) -> set[str]:
    """Removes workspaces whose process has died; returns the bases that living ones use."""
    in_use: set[str] = set()
    for root in workspaces.iterdir() if workspaces.is_dir() else ():
        views = list((root / "view").iterdir()) if (root / "view").is_dir() else []
        layout = _Layout(root, views[0] if views else root / "view" / "none")
        try:
            fd = os.open(layout.lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            _remove(layout)
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            in_use.add(layout.base_name.read_text())
        else:
            _remove(layout)
        finally:
            os.close(fd)
    return in_use


def _remove(layout: _Layout) -> None:
    overlay.unmount(layout.view)
    shutil.rmtree(layout.root, ignore_errors=True)


def _copy_candidates(base: Path, view: Path, copied_ns: int) -> set[str]:
    """Everything new, gone, or touched since the copy: no change can set a ctime back."""
    here, there = files_below(view, ""), files_below(base, "")
    changed = {name for name in here & there if os.lstat(view / name).st_ctime_ns >= copied_ns}
    return (here ^ there) | changed
