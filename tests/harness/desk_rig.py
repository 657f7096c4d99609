"""A desk over a real checkout and workspace, with an agent that does what a test tells it."""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tightloop.agent.turn import Status, TurnResult
from tightloop.harness.desk import Desk
from tightloop.harness.undo import History, place_of
from tightloop.protocol.deltas import Usage
from tightloop.protocol.items import Part
from tightloop.sandbox.workspace import Workspace, open_workspace

Work = Callable[[Path], object]
DONE = TurnResult("", Status.COMPLETED, [], [], 0, 0, Usage())


@dataclass
class Actor:
    """In the place of an agent. ``work`` is what its next turn does to the workspace."""

    place: Path
    work: Work | None = None
    told: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    async def run_turn(
        self,
        prompt: str,
        *,
        parts: Sequence[Part] = (),
        request: Mapping[str, Any] | None = None,
    ) -> TurnResult:
        """See ``Agent.run_turn``."""
        self.options = {"parts": parts, "request": request}
        if self.work is not None:
            self.work(self.place)
        return DONE

    def tell(self, message: str) -> None:
        """See ``Agent.tell``."""
        self.told.append(message)


@dataclass
class Rig:
    """What can be looked at."""

    desk: Desk
    actor: Actor
    workspace: Workspace
    repository: Path
    notes: list[str]
    changes: list[str]

    @property
    def view(self) -> Path:
        return self.workspace.path

    async def turn(self, title: str, work: Work) -> None:
        """One turn that does this work."""
        self.actor.work = work
        await self.desk.run_turn(title)


@asynccontextmanager
async def desk_over(repository: Path, state: Path, thread_id: str = "abc") -> AsyncIterator[Rig]:
    """Opened, and closed afterwards; twice with one state directory is going on in another process."""
    workspace = await open_workspace(repository, state_dir=state)
    notes: list[str] = []
    changes: list[str] = []

    async def flush() -> None:
        changes.append("flushed")

    actor = Actor(workspace.path)
    history = History(place_of(state, thread_id))
    desk = Desk(actor, workspace, history, lambda: changes.append("changed"), notes.append, flush)
    try:
        await desk.open()
        yield Rig(desk, actor, workspace, repository, notes, changes)
    finally:
        await workspace.discard()


def tree(place: Path) -> dict[str, tuple[str, bytes, bool]]:
    """Every file and link, git's own aside: kind, bytes, and whether it can be run."""
    found = {}
    for path in place.rglob("*"):
        name = path.relative_to(place).as_posix()
        if ".git" in name.split("/") or (path.is_dir() and not path.is_symlink()):
            continue
        if path.is_symlink():
            found[name] = ("link", os.fsencode(os.readlink(path)), False)
        else:
            found[name] = ("file", path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found
