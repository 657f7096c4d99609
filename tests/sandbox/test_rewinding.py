"""Two trees in step: no byte of the user's is lost, whatever both sides do in whatever order."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.sandbox.conftest import commit, git
from tightloop.sandbox.entries import Change, Entry, read_below
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.workspace import Workspace, WorkspaceConflict, open_workspace

KINDS = ["overlay", "copy"] if os.geteuid() == 0 else ["copy"]
NAMES = ("a", "b", "c/d", "c/e", "f")


async def opened(repository: Path, kind: str | None = None) -> Workspace:
    return await open_workspace(repository, state_dir=repository.parent / "state", kind=kind)


async def test_a_merge_is_all_or_nothing(repository: Path) -> None:
    """Both sides' lines are there, work goes on from the user's version, and applying is quiet."""
    workspace = await opened(repository)
    try:
        lines = (repository / "lines").read_text()
        (workspace.path / "lines").write_text(lines.replace("line 0", "agent 0"))
        (workspace.path / "script").write_text("agent\n")
        (repository / "lines").write_text(lines.replace("line 11", "user 11"))
        (repository / "script").write_text("user\n")
        assert await workspace.merge(["lines", "script"]) == ["script"]
        assert "user 11" not in (workspace.path / "lines").read_text()
        assert await workspace.merge(["lines"]) == []
        both = lines.replace("line 0", "agent 0").replace("line 11", "user 11")
        assert (workspace.path / "lines").read_text() == both
        assert "user 11" not in await workspace.diff()
        (workspace.path / "script").write_text("#!/bin/sh\n")
        assert await workspace.apply() == ["lines"]
        assert (repository / "lines").read_text() == both
    finally:
        await workspace.discard()


async def test_work_of_an_earlier_workspace_is_restored(repository: Path) -> None:
    """Where the user has changed the file since, the work is there and applying refuses it."""
    first = await opened(repository)
    (first.path / "lines").write_text("agent\n")
    (first.path / "new").write_text("agent\n")
    (first.path / "data.bin").unlink()
    kept = await first.changes(is_pending=True)
    await first.discard()
    (repository / "lines").write_text("user\n")
    (repository / "new").write_text("agent\n")  # applied by hand
    second = await opened(repository)
    try:
        assert await second.restore(kept) == ["lines"]
        assert (second.path / "lines").read_text() == "agent\n"
        assert [change.path for change in await second.changes(is_pending=True)] == [
            "data.bin",
            "lines",
        ]
        assert not await second.follow()
        with pytest.raises(WorkspaceConflict) as caught:
            await second.apply()
        assert caught.value.paths == ("lines",)
        (repository / "lines").write_text("".join(f"line {i}\n" for i in range(12)))
        assert await second.apply() == ["data.bin", "lines"]
    finally:
        await second.discard()


async def test_a_rewind_that_one_tree_refuses_changes_neither(repository: Path) -> None:
    workspace = await opened(repository)
    try:
        old, new = Entry(b"old\n"), Entry(b"new\n")
        for place in (workspace.path, repository):
            (place / "x").write_text("new\n")
            (place / "y").write_text("new\n")
        here = [Change("x", new, old), Change("y", new, None)]
        (workspace.path / "y").write_text("other\n")
        with pytest.raises(WorkspaceConflict) as caught:
            await workspace.rewind(here, here)
        assert caught.value.paths == ("y",)
        (workspace.path / "y").write_text("new\n")
        (repository / "x").write_text("other\n")
        with pytest.raises(WorkspaceConflict) as caught:
            await workspace.rewind(here, here)
        assert caught.value.paths == ("x",)
        assert (workspace.path / "x").read_text() == "new\n"
        assert (repository / "y").read_text() == "new\n"
        (repository / "x").write_text("new\n")
        await workspace.rewind(here, here)
        await workspace.rewind(here, here)  # what a crash has left half-done is done again
        for place in (workspace.path, repository):
            assert (place / "x").read_text() == "old\n"
            assert not (place / "y").exists()
    finally:
        await workspace.discard()


async def test_what_was_put_back_is_newer_for_python(repository: Path) -> None:
    """Byte code is found by size and whole second: another text must not have both."""
    workspace = await opened(repository)
    try:
        module = workspace.path / "m.py"
        module.write_text("x = 2\n")
        before = int(module.stat().st_mtime)
        await workspace.rewind([Change("m.py", Entry(b"x = 2\n"), Entry(b"x = 1\n"))], [])
        assert int(module.stat().st_mtime) > before
    finally:
        await workspace.discard()


class Trees(RuleBasedStateMachine):
    """The user and the agent write, each in a tree; the view follows and is applied.

    Every content is written once only, so that it tells who wrote it. ``held`` is what the view
    has held at a path: only that may be written over in the checkout.
    """

    kind = KINDS[0]

    @initialize()
    def begin(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="tightloop-test-"))
        self.repository = self.place / "repo"
        self.repository.mkdir()
        self.number = 0
        for name in NAMES[:4]:
            self.write(self.repository, name, "base")
        git(self.repository, "init", "-q", "-b", "main")
        commit(self.repository)
        git(self.repository, "branch", "other")
        self.runner = asyncio.Runner()
        self.workspace = self.runner.run(opened(self.repository, self.kind))
        self.held: dict[str, set[Entry | None]] = {name: set() for name in NAMES}
        self.look()

    def write(self, tree: Path, name: str, who: str) -> None:
        self.number += 1
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(f"{who} {self.number}\n" + "more\n" * (self.number % 3))

    def look(self) -> None:
        for name in NAMES:
            self.held[name].add(read_below(self.workspace.path, name))

    def checkout(self) -> dict[str, Entry | None]:
        return {name: read_below(self.repository, name) for name in NAMES}

    def view(self) -> dict[str, Entry | None]:
        return {name: read_below(self.workspace.path, name) for name in NAMES}

    @rule(name=st.sampled_from(NAMES), is_user=st.booleans())
    def change(self, name: str, is_user: bool) -> None:
        self.write(self.repository if is_user else self.workspace.path, name, "ua"[not is_user])
        self.look()

    @rule(name=st.sampled_from(NAMES), is_user=st.booleans())
    def delete(self, name: str, is_user: bool) -> None:
        (self.repository if is_user else self.workspace.path).joinpath(name).unlink(missing_ok=True)

    @rule()
    def commit(self) -> None:
        git(self.repository, "add", "-A")
        git(self.repository, "commit", "-q", "--allow-empty", "-m", "more")

    @rule(branch=st.sampled_from(["main", "other"]))
    def switch(self, branch: str) -> None:
        if not git(self.repository, "status", "--porcelain"):
            git(self.repository, "checkout", "-q", branch)

    @rule()
    def follow(self) -> None:
        before = self.view()
        pending = {one.path for one in self.runner.run(self.workspace.changes(is_pending=True))}
        followed = self.runner.run(self.workspace.follow())
        self.look()
        after, checkout = self.view(), self.checkout()
        for name in NAMES:
            if name not in followed.taken:
                assert before[name] == after[name]
            if name not in pending:  # not the agent's: exactly as the user has it
                assert checkout[name] == after[name]
            elif name in followed.taken:
                raise AssertionError(f"work on {name} was lost")

    @rule(is_forced=st.booleans())
    def apply(self, is_forced: bool) -> None:
        before = self.checkout()
        clashes = self.runner.run(self.workspace.clashes())
        over = {clash.path: clash.theirs for clash in clashes} if is_forced else {}
        if clashes and not over:
            with pytest.raises(WorkspaceConflict) as caught:
                self.runner.run(self.workspace.apply())
            assert {clash.path for clash in clashes} == set(caught.value.paths)
            assert before == self.checkout()
            return
        written = self.runner.run(self.workspace.apply(over=over))
        for name in written:
            if name not in over:
                assert before[name] in self.held[name]
        assert {name: self.checkout()[name] for name in NAMES if name not in written} == {
            name: before[name] for name in NAMES if name not in written
        }
        assert self.runner.run(self.workspace.changes(is_pending=True)) == []

    @invariant()
    def changes_are_what_the_view_holds(self) -> None:
        if hasattr(self, "workspace"):
            view = self.view()
            for change in self.runner.run(self.workspace.changes()):
                assert view[change.path] == change.after

    def teardown(self) -> None:
        if hasattr(self, "workspace"):
            self.runner.run(self.workspace.discard())
            self.runner.close()
            shutil.rmtree(self.place, ignore_errors=True)


class CopiedTrees(Trees):
    """The same where the kernel allows no overlay."""

    kind = "copy"


TestTrees = Trees.TestCase
TestTrees.settings = settings(max_examples=12, stateful_step_count=14, deadline=None)
TestCopiedTrees = CopiedTrees.TestCase
TestCopiedTrees.settings = settings(max_examples=6, stateful_step_count=14, deadline=None)


async def test_a_discarded_workspace_follows_nobody(repository: Path) -> None:
    workspace = await opened(repository)
    await workspace.discard()
    with pytest.raises(SandboxError, match="discarded"):
        await workspace.follow()
