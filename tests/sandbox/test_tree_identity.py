"""Two trees are the same if and only if a command finds the same files in both."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.sandbox.conftest import git
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.tree_identity import Tree, changed_between, read_tree, staged_in
from tightloop.sandbox.workspace import Workspace, open_workspace


@pytest_asyncio.fixture
async def workspace_(repository: Path, tmp_path: Path) -> AsyncIterator[Workspace]:
    """Over a repository with a few kinds of files."""
    opened = await open_workspace(repository, state_dir=tmp_path / "state", kind="overlay")
    yield opened
    await opened.discard()


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda view: (view / "lines").write_text("other\n"),
    "a mode": lambda view: (view / "lines").chmod(0o600),
    "a new file": lambda view: (view / "new").touch(),
    "an ignored file": lambda view: (view / "x.o").touch(),
    "a new directory": lambda view: (view / "empty").mkdir(),
    "a deletion": lambda view: (view / "lines").unlink(),
    "the mode of a directory": lambda view: (view / "sub").chmod(0o700),
    "a link": lambda view: (view / "link2").symlink_to("lines"),
    "a fifo": lambda view: os.mkfifo(view / "fifo"),
    "a name": lambda view: (view / "lines").rename(view / "rows"),
    "a branch": lambda view: (view / ".git" / "HEAD").write_text("ref: refs/heads/x\n"),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_every_change_makes_another_tree(workspace_: Workspace, name: str) -> None:
    """And a fork made after it has the same one."""
    before = read_tree(workspace_)
    await asyncio.to_thread(CHANGES[name], workspace_.path)
    after = read_tree(workspace_)
    assert not after.is_same(before)
    assert after.digest != before.digest
    assert changed_between(before.entries, after.entries)
    fork = (await workspace_.fork())[0]
    try:
        assert read_tree(fork).is_same(after)
    finally:
        await fork.discard()


async def test_what_is_not_a_change(workspace_: Workspace) -> None:
    """A touch, a change taken back, caches, and what git status writes."""
    view = workspace_.path
    before = read_tree(workspace_)
    text = (view / "lines").read_text()
    (view / "lines").write_text("other")
    (view / "lines").write_text(text)
    (view / "script").touch()
    (view / ".pytest_cache").mkdir()
    (view / ".pytest_cache" / "x").touch()
    index = view / ".git" / "index"
    index.write_bytes(index.read_bytes())
    after = read_tree(workspace_)
    assert after.is_same(before)
    assert after.digest == before.digest
    assert changed_between(before.caches, after.caches) == [".pytest_cache/", ".pytest_cache/x"]


async def test_what_cannot_be_told(workspace_: Workspace, repository: Path, tmp_path: Path) -> None:
    """A copy, and more than may be read."""
    (workspace_.path / "big").write_bytes(b"x" * 101)
    with pytest.raises(SandboxError, match="more than 100 bytes"):
        read_tree(workspace_, max_bytes=100)
    copy = await open_workspace(repository, state_dir=tmp_path / "state", kind="copy")
    try:
        with pytest.raises(SandboxError, match="is a copy"):
            read_tree(copy)
    finally:
        await copy.discard()


def test_the_difference_of_two_listings() -> None:
    assert changed_between({"a": b"1", "b": b"1"}, {"b": b"2", "c": b"1"}) == ["a", "b", "c"]
    assert Tree({"a": b"1"}, {"c": b"1"}).is_same(Tree({"a": b"1"}, {}))


async def test_a_directory_in_the_place_of_a_link_counts_with_its_files(
    repository: Path, tmp_path: Path
) -> None:
    """Also those that are like what the link led to."""
    (repository / "behind").mkdir()
    (repository / "behind" / "file").write_text("same\n")
    (repository / "pointer").symlink_to("behind")
    workspace = await open_workspace(repository, state_dir=tmp_path / "state", kind="overlay")
    try:
        (workspace.path / "pointer").unlink()
        (workspace.path / "pointer").mkdir()
        without = read_tree(workspace)
        (workspace.path / "pointer" / "file").write_text("same\n")
        assert changed_between(without.entries, read_tree(workspace).entries) == ["pointer/file"]
    finally:
        await workspace.discard()


async def test_what_git_has_staged_counts(workspace_: Workspace) -> None:
    """Not what it notes of files' status: git status writes that, and shows the same afterwards."""
    view = workspace_.path
    (view / "script").touch()
    await asyncio.to_thread(git, view, "status")
    before = read_tree(workspace_)
    os.utime(view / "lines", ns=(1, 1))
    await asyncio.to_thread(git, view, "status")
    assert read_tree(workspace_).is_same(before)
    await asyncio.to_thread(git, view, "rm", "-q", "--cached", "lines")
    after = read_tree(workspace_)
    assert changed_between(before.entries, after.entries) == [".git/index"]


async def test_an_index_is_understood_or_taken_as_it_is(workspace_: Workspace) -> None:
    """Flags of an entry count; a version that is not known, and half an index, are all bytes."""
    view, index = workspace_.path, workspace_.path / ".git" / "index"
    plain = staged_in(index.read_bytes())
    assert plain.count(b"\0") >= 1
    assert b"lines\0" in plain
    await asyncio.to_thread(git, view, "update-index", "--assume-unchanged", "lines")
    assert staged_in(index.read_bytes()) != plain
    data = index.read_bytes()
    assert staged_in(data[:100]) == data[:100]
    assert staged_in(b"DIRC\0\0\0\x09" + data[8:]) == b"DIRC\0\0\0\x09" + data[8:]


async def test_times_are_those_of_written_files(workspace_: Workspace) -> None:
    """A fork has the same; caches and git's own files have none."""
    view = workspace_.path
    before = read_tree(workspace_)
    (view / "script").touch()
    after = read_tree(workspace_)
    assert after.is_same(before)
    assert not after.has_same_times(before)
    assert list(after.times) == ["script"]
    fork = (await workspace_.fork())[0]
    try:
        assert read_tree(fork).has_same_times(after)
    finally:
        await fork.discard()
