"""Directories of workspaces: who uses what, and how they go away.

A workspace holds a lock while its process lives, and names the directories that it is laid over,
so that nobody collects them. Throwing a directory away is one rename; deleting it comes later.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tightloop.sandbox import layers, locks, mounts
from tightloop.sandbox.locks import is_free

USES = "uses"
"""File that names the directories which a workspace or a set-up under way needs, one a line."""

SLOTS = "tightloop-slots"
"""Directory of places that get a workspace late; sandboxes hide every directory of this name."""


@dataclass(frozen=True, slots=True)
class Layout:
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


def lay_out(state_dir: Path, name: str, uses: Iterable[Path]) -> tuple[Layout, int]:
    """New empty directories and the descriptor that holds their lock.

    The caller holds the state lock, or something else keeps what is named in ``uses``.
    """
    root = state_dir / "workspaces" / secrets.token_hex(8)
    layout = Layout(root, root / "view" / name)
    root.mkdir(parents=True)
    lock_fd = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock_fd, fcntl.LOCK_EX)
    try:
        (root / USES).write_text("".join(f"{path}\n" for path in uses))
        for directory in (layout.upper, layout.work, layout.view):
            directory.mkdir(parents=True)
    except BaseException:
        os.close(lock_fd)
        raise
    return layout, lock_fd


def in_use(state_dir: Path) -> set[Path]:
    """Directories that living workspaces need. Those of dead processes are thrown away.

    The caller holds the state lock: nobody is laying out meanwhile.
    """
    used: set[Path] = set()
    workspaces = state_dir / "workspaces"
    for root in list(workspaces.iterdir()) if workspaces.is_dir() else ():
        if is_free(root / "lock"):
            throw_away(root, state_dir)
        else:
            used |= read_uses(root)
    slots = state_dir / SLOTS
    for root in list(slots.iterdir()) if slots.is_dir() else ():
        if is_free(root / "lock"):
            throw_away_slot(root, state_dir)
    return used


def read_uses(root: Path) -> set[Path]:
    """The directories that a workspace or a set-up under way has named."""
    with contextlib.suppress(FileNotFoundError):
        return {Path(line) for line in (root / USES).read_text().splitlines()}
    return set()


def throw_away(root: Path, state_dir: Path) -> Path | None:
    """Nothing is mounted below ``root`` and it is out of the way; where it waits for its end."""
    views = root / "view"
    for view in list(views.iterdir()) if views.is_dir() else ():
        mounts.unmount(view)
    return discard_directory(root, state_dir)


def throw_away_slot(root: Path, state_dir: Path) -> Path | None:
    """As ``throw_away``, for a slot: one mount at its root carries all others."""
    while mounts.unmount(root):
        pass
    return discard_directory(root, state_dir)


def discard_directory(directory: Path, state_dir: Path) -> Path | None:
    """The directory is out of the way, at once whatever it holds; None if it was gone."""
    trash = state_dir / "trash"
    trash.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = trash / secrets.token_hex(8)
    try:
        directory.rename(target)
    except FileNotFoundError:
        return None
    return target


def empty_trash(state_dir: Path, *, wait: bool = True) -> None:
    """What was thrown away is deleted, by one at a time: several would be in each other's way.

    Without ``wait`` it is left to whoever is at it.
    """
    trash = state_dir / "trash"
    known: set[str] = set()
    while trash.is_dir() and (found := set(os.listdir(trash))) - known:
        lock_fd = locks.acquire(state_dir / "trash.lock", wait=wait)
        if lock_fd is None:
            return
        try:
            for name in found:
                layers.remove_tree(trash / name)
        finally:
            os.close(lock_fd)
        known = found  # what could not be deleted is not tried again
