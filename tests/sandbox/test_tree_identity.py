"""Two trees are the same if and only if a command finds the same files in both."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.tree_identity import Tree, changed_between, read_tree
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
