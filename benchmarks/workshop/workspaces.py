"""A fresh copy of a repository to work in, and what is done with it, beside git and cp."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.lab.record import Experiment, this_machine
from benchmarks.workshop.interleaved import Sample, Table, in_turn, timed
from benchmarks.workshop.programs import own_version, spawn, versions
from benchmarks.workshop.projects import IDENTITY, git
from benchmarks.workshop.trees import LARGE, SMALL, change, make_tree
from tightloop.sandbox import own_namespace
from tightloop.sandbox.candidates import CandidatePool
from tightloop.sandbox.interface import Command, Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.single_use import SingleUseSandbox
from tightloop.sandbox.workspace import Workspace, open_workspace
from tightloop.trace.clock import now_ns

NAME = "workshop-workspaces"
OURS = "tightloop, candidate: fork in a waiting locked sandbox"
OURS_NEW = "tightloop, workspace + new locked sandbox"
OURS_FORK = "tightloop, fork + new locked sandbox"
OURS_SESSION = "tightloop, workspace + session"
FRESH = "fresh copy and command"
IN_MEMORY = Path("/dev/shm")
NEEDED_BYTES = 2 << 30
TRUE = ["true"]


class Copies:
    """Ways to a fresh copy of one repository with a command run in it, each removed again."""

    def __init__(self, place: Path, repository: Path) -> None:
        self._repository = repository
        self._state, self._target = place / "state", place / "target"
        self._parent: Workspace | None = None
        self._pool: CandidatePool | None = None

    async def start(self) -> None:
        """The base exists, as after ``tightloop repo preload``; a session goes on, candidates wait."""
        self._parent = await open_workspace(self._repository, state_dir=self._state)
        policy = self._parent.completed(Policy(self._parent.path, warm_tests=False))
        self._pool = CandidatePool(self._parent, policy, size=2)
        await self._pool.start()

    async def close(self) -> None:
        """Sandboxes and workspace are gone."""
        if self._pool is not None:
            await self._pool.close()
        if self._parent is not None:
            await self._parent.discard()

    async def ours_waiting(self) -> float:
        """A workspace like the session's, shown to a locked sandbox that waits, and the command in it.

        The next sandbox is started before the next round, as it is while a model thinks.
        """
        assert self._pool is not None
        await self._pool.filled()
        result = await self._pool.run(Command(argv=TRUE))
        return (result.ended_ns - result.started_ns) / 1e6

    async def ours(self) -> float:
        """A workspace of the repository as it is, new isolation, and the command in it."""
        return await self._in_locked_sandbox(
            lambda: open_workspace(self._repository, state_dir=self._state)
        )

    async def ours_forked(self) -> float:
        """The same from a workspace that is there already, as for one more candidate."""

        async def fork() -> Workspace:
            assert self._parent is not None
            [workspace] = await self._parent.fork()
            return workspace

        return await self._in_locked_sandbox(fork)

    async def ours_session(self) -> float:
        """A workspace, a persistent sandbox that is ready for many commands, and one command."""
        started_ns = now_ns()
        workspace = await open_workspace(self._repository, state_dir=self._state)
        sandbox = await open_sandbox(Policy(workspace.path, warm_tests=False))
        await sandbox.run(Command(argv=TRUE))
        took_ms = (now_ns() - started_ns) / 1e6
        await sandbox.close()
        await workspace.discard()
        return took_ms

    async def _in_locked_sandbox(self, make: Callable[[], Awaitable[Workspace]]) -> float:
        started_ns = now_ns()
        workspace = await make()
        sandbox = SingleUseSandbox(Policy(workspace.path, warm_tests=False), kind="bubblewrap")
        await sandbox.run(Command(argv=TRUE))
        took_ms = (now_ns() - started_ns) / 1e6
        await workspace.discard()
        return took_ms

    def theirs(self, *argv: str) -> Sample:
        """A command that makes the target, and the plain command in there; no isolation."""

        async def sample() -> float:
            started_ns = now_ns()
            await spawn([*argv, str(self._target)], self._repository)
            await spawn(TRUE, self._target)
            took_ms = (now_ns() - started_ns) / 1e6
            await spawn(["rm", "-rf", str(self._target)], self._repository)
            await spawn(["git", "worktree", "prune"], self._repository)
            return took_ms

        return sample


async def fresh(copies: Copies, repository: Path, rounds: int) -> dict[str, list[float]]:
    """Each way to a fresh copy and a command in it."""
    return await in_turn(
        {
            OURS: copies.ours_waiting,
            OURS_NEW: copies.ours,
            OURS_FORK: copies.ours_forked,
            OURS_SESSION: copies.ours_session,
            "git worktree add": copies.theirs("git", "worktree", "add", "-q", "--detach"),
            "git clone --shared": copies.theirs("git", "clone", "-q", "--shared", str(repository)),
            "cp -a": copies.theirs("cp", "-a", str(repository)),
        },
        rounds,
    )


class Operations:
    """What is done with a copy in which a few files were changed: ours, and git's way to the same."""

    def __init__(self, place: Path, repository: Path) -> None:
        self._repository, self._state = repository, place / "state"
        self._tree, self._fork = place / "tree", place / "fork"
        self._num = 0

    async def round(self) -> dict[str, dict[str, float]]:
        """Milliseconds of each operation, ours and theirs, in that order."""
        self._num += 1
        ours = await self._ours()
        theirs = await self._theirs()
        return {name: {"tightloop": ours[name], "git worktree": theirs[name]} for name in ours}

    async def _ours(self) -> dict[str, float]:
        workspace = await open_workspace(self._repository, state_dir=self._state)
        await asyncio.to_thread(change, workspace.path, str(self._num))
        took = {"fork": await timed(lambda: self._fork_ours(workspace))()}
        took["diff"] = await timed(workspace.diff)()
        took["apply"] = await timed(workspace.apply)()
        took["discard"] = await timed(workspace.discard)()
        for each in self._forks:
            await each.discard()
        await self._restore()
        return took

    async def _fork_ours(self, workspace: Workspace) -> None:
        self._forks = await workspace.fork()

    async def _theirs(self) -> dict[str, float]:
        add = ["git", "worktree", "add", "-q", "--detach"]
        await spawn([*add, str(self._tree)], self._repository)
        await asyncio.to_thread(change, self._tree, str(self._num))
        took = {"fork": await timed(self._fork_theirs)()}
        took["diff"] = await timed(lambda: spawn(["git", "diff"], self._tree))()
        took["apply"] = await timed(self._apply_theirs)()
        took["discard"] = await timed(
            lambda: spawn(
                ["git", "worktree", "remove", "--force", str(self._tree)], self._repository
            )
        )()
        await spawn(["git", "worktree", "remove", "--force", str(self._fork)], self._repository)
        await self._restore()
        return took

    async def _fork_theirs(self) -> None:
        """A second worktree with the first one's changes: by a commit that no branch has."""
        made = await spawn(["git", *IDENTITY, "stash", "create"], self._tree)
        name = made.decode().strip()
        add = ["git", "worktree", "add", "-q", "--detach", str(self._fork), name]
        await spawn(add, self._repository)

    async def _apply_theirs(self) -> None:
        await spawn(["bash", "-c", f"git diff | git -C '{self._repository}' apply"], self._tree)

    async def _restore(self) -> None:
        await asyncio.to_thread(git, self._repository, "checkout", "-q", "--", ".")


async def measure(place: Path, sizes: dict[int, int]) -> Table:
    """``sizes``: rounds by number of files."""
    table = Table()
    for size, rounds in sizes.items():
        here = place / str(size)
        repository = here / "repository"
        await asyncio.to_thread(make_tree, repository, size)
        copies = Copies(here, repository)
        try:
            await copies.start()
            took = await fresh(copies, repository, rounds)
        finally:
            await copies.close()
        table.add(took, [OURS], step=FRESH, files=size)
        operations = Operations(here, repository)
        found = [await operations.round() for _ in range(rounds + 1)][1:]
        for step in found[0]:
            series = {name: [each[step][name] for each in found] for name in found[0][step]}
            table.add(series, ["tightloop"], step=step, files=size)
    return table


def place_in_memory() -> str | None:
    """A folder whose files are in memory and that has room, so that no disk plays a part."""
    is_there = IN_MEMORY.is_dir() and os.access(IN_MEMORY, os.W_OK)
    return str(IN_MEMORY) if is_there and shutil.disk_usage(IN_MEMORY).free > NEEDED_BYTES else None


def run_experiment(*, is_quick: bool) -> Experiment:
    """Measure on trees of two sizes."""
    sizes = {SMALL: 5} if is_quick else {SMALL: 25, LARGE: 3}
    place = place_in_memory()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as name:
        own_namespace.enter(Path(name))  # as the agent does: mounts of this process only
        table = asyncio.run(measure(Path(name), sizes))
    return Experiment(
        name=NAME,
        title="Fresh copies of a repository, each with one command `true`, and work with them",
        settings={
            "quick": is_quick,
            **{f"rounds at {size} files": num for size, num in sizes.items()},
            "files in memory": place is not None,
        },
        machine=this_machine(),
        versions={"tightloop": own_version(), **versions("git", "cp", "bwrap")},
        rows=table.rows,
        ratios=table.ratios,
        notes=[
            "Ours runs the command locked in (namespaces, seccomp, no network); the others run it as it is.",
            "The base is there, as after `tightloop repo preload`; the first time costs a copy. A candidate begins"
            " with a session's present state; its sandbox was started before and waits.",
            "The step fork copies a workspace with five changed files; git's way is `stash create`.",
            "Discarding ours is over when the copy is out of the way; a thread deletes it.",
        ],
    )
