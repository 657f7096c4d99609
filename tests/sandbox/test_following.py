"""The user's own edits: seen, and brought into the view where nobody has changed the file there."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.sandbox.conftest import commit, git
from tightloop.sandbox import following
from tightloop.sandbox.following import Followed
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.workspace import Workspace, WorkspaceConflict, open_workspace

KINDS = ["overlay", "copy"] if os.geteuid() == 0 else ["copy"]
Open = Callable[[Path], Awaitable[Workspace]]


@pytest_asyncio.fixture(params=KINDS)
async def open_one(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Opens workspaces of every kind that is possible here."""
    opened: list[Workspace] = []

    async def open_(repository: Path) -> Workspace:
        workspace = await open_workspace(
            repository, state_dir=tmp_path / "state", kind=str(request.param)
        )
        opened.append(workspace)
        return workspace

    yield open_
    for workspace in opened:
        await workspace.discard()


async def test_edits_new_files_deletions_and_modes(repository: Path, open_one: Open) -> None:
    """They are in the view, and no part of the agent's work."""
    (repository / "untracked").write_text("one\n")
    workspace = await open_one(repository)
    assert not await workspace.follow()
    (repository / "lines").write_text("edited\n")
    (repository / "untracked").write_text("two\n")
    (repository / "sub" / "deep" / "file").unlink()
    (repository / "fresh").mkdir()
    (repository / "fresh" / "file").write_text("new\n")
    (repository / "script").chmod(0o644)
    (repository / "link").unlink()
    (repository / "link").symlink_to("script")
    (repository / "ignored.o").write_text("not looked at")
    followed = await workspace.follow()
    assert followed == Followed(
        ("fresh/file", "lines", "link", "script", "sub/deep/file", "untracked")
    )
    view = workspace.path
    assert (view / "lines").read_text() == "edited\n"
    assert (view / "untracked").read_text() == "two\n"
    assert (view / "fresh" / "file").read_text() == "new\n"
    assert not (view / "sub" / "deep" / "file").exists()
    assert not (view / "script").stat().st_mode & 0o111
    assert os.readlink(view / "link") == "script"
    assert not (view / "ignored.o").exists()
    assert await workspace.changed_files() == []
    assert await workspace.changes(is_pending=True) == []
    assert not await workspace.follow()


async def test_work_goes_on_from_the_users_version(repository: Path, open_one: Open) -> None:
    """The diff is against what the user made of the file, and applying finds no conflict."""
    workspace = await open_one(repository)
    (repository / "lines").write_text("user\n")
    await workspace.follow()
    (workspace.path / "lines").write_text("user\nagent\n")
    assert "-line 0" not in await workspace.diff()
    assert "+agent" in await workspace.diff()
    assert await workspace.apply() == ["lines"]
    assert (repository / "lines").read_text() == "user\nagent\n"
    assert not await workspace.follow()
    (workspace.path / "lines").write_text("".join(f"line {i}\n" for i in range(12)))
    assert await workspace.changed_files() == ["lines"]  # as in the base, not as the user had it


async def test_what_both_changed_is_a_conflict_told_once(repository: Path, open_one: Open) -> None:
    workspace = await open_one(repository)
    (workspace.path / "lines").write_text("agent\n")
    (repository / "lines").write_text("user\n")
    (repository / "data.bin").write_bytes(b"\1")
    assert await workspace.follow() == Followed(("data.bin",), ("lines",))
    assert (workspace.path / "lines").read_text() == "agent\n"
    assert not await workspace.follow()
    with pytest.raises(WorkspaceConflict, match="'lines'"):
        await workspace.apply()
    assert (repository / "lines").read_text() == "user\n"
    (repository / "lines").write_text("user again\n")
    assert await workspace.follow() == Followed((), ("lines",))
    clash = (await workspace.clashes())[0]
    assert clash.theirs is not None
    assert clash.theirs.content == b"user again\n"
    assert await workspace.apply(over={"lines": clash.theirs}) == ["lines"]
    assert not await workspace.follow()


async def test_a_conflict_ends_when_one_side_goes_back(repository: Path, open_one: Open) -> None:
    original = (repository / "lines").read_text()
    workspace = await open_one(repository)
    (workspace.path / "lines").write_text("agent\n")
    (repository / "lines").write_text("user\n")
    await workspace.follow()
    (workspace.path / "lines").write_text(original)
    assert await workspace.follow() == Followed(("lines",))
    assert (workspace.path / "lines").read_text() == "user\n"
    (workspace.path / "lines").write_text("agent\n")
    (repository / "lines").write_text("user 2\n")
    await workspace.follow()
    (repository / "lines").write_text("user\n")
    assert not await workspace.follow()
    assert await workspace.apply() == ["lines"]


async def test_both_did_the_same(repository: Path, open_one: Open) -> None:
    """As if it had been applied: nothing is pending, and it is still part of the diff."""
    workspace = await open_one(repository)
    for place in (repository, workspace.path):
        (place / "lines").write_text("same\n")
    assert not await workspace.follow()
    assert await workspace.changes(is_pending=True) == []
    assert await workspace.changed_files() == ["lines"]


async def test_commits_and_branches(repository: Path, open_one: Open) -> None:
    """Files that differ between the commits come too; what happened is said in words."""
    git(repository, "branch", "side")
    workspace = await open_one(repository)
    (repository / "lines").write_text("committed\n")
    commit(repository)
    followed = await workspace.follow()
    assert followed.taken == ("lines",)
    assert "branch 'main' has a new commit, at" in followed.moved
    (workspace.path / "script").write_text("agent\n")
    git(repository, "checkout", "-q", "side")
    (repository / "script").write_text("side\n")
    (repository / "only here").write_text("side\n")
    commit(repository)
    followed = await workspace.follow()
    assert (followed.taken, followed.conflicts) == (("lines", "only here"), ("script",))
    assert "was switched to branch 'side'" in followed.moved
    assert (workspace.path / "lines").read_text().startswith("line 0")
    git(repository, "checkout", "-q", "--detach", "HEAD^")
    followed = await workspace.follow()
    assert followed.taken == ("only here",)
    assert "a detached HEAD" in followed.moved
    assert await workspace.apply() == ["script"]
    assert git(repository, "log", "--oneline", "side").count("\n") == 2


async def test_a_commit_of_what_was_applied_is_no_edit(repository: Path, open_one: Open) -> None:
    workspace = await open_one(repository)
    (workspace.path / "lines").write_text("agent\n")
    await workspace.apply()
    commit(repository)
    followed = await workspace.follow()
    assert (followed.taken, followed.conflicts) == ((), ())
    assert await workspace.changes(is_pending=True) == []


async def test_the_index_is_not_written(repository: Path, open_one: Open) -> None:
    workspace = await open_one(repository)
    os.utime(repository / "lines")
    before = (repository / ".git" / "index").read_bytes()
    (repository / "lines").write_text("edited\n")
    await workspace.follow()
    assert (repository / ".git" / "index").read_bytes() == before


async def test_a_file_where_the_view_has_a_directory(repository: Path, open_one: Open) -> None:
    """Work of the agent's in it is in the way: a conflict, and the rest comes all the same."""
    workspace = await open_one(repository)
    (workspace.path / "sub" / "mine").write_text("agent\n")
    (repository / "sub" / "deep" / "file").unlink()
    (repository / "sub" / "deep").rmdir()
    (repository / "sub").rmdir()
    (repository / "sub").write_text("a file now\n")
    followed = await workspace.follow()
    assert followed == Followed(("sub/deep/file",), ("sub",))
    assert (workspace.path / "sub" / "mine").read_text() == "agent\n"
    assert not await workspace.follow()


async def test_a_plain_directory(tmp_path: Path, open_one: Open) -> None:
    """Without git every file is looked at, and only what moved is read."""
    place = tmp_path / "plain"
    (place / "sub").mkdir(parents=True)
    (place / "one").write_text("1\n")
    (place / "sub" / "two").write_text("2\n")
    workspace = await open_one(place)
    assert not await workspace.follow()
    (place / "one").write_text("1!\n")
    (place / "sub" / "two").unlink()
    (place / "three").write_text("3\n")
    assert await workspace.follow() == Followed(("one", "sub/two", "three"))
    (place / "one").write_text("2!\n")  # as large, and perhaps as old
    assert await workspace.follow() == Followed(("one",))


async def test_a_fork_knows_what_its_parent_took(repository: Path, open_one: Open) -> None:
    """Taken back, its work does not undo what the user did meanwhile."""
    workspace = await open_one(repository)
    (repository / "lines").write_text("user\n")
    await workspace.follow()
    fork = (await workspace.fork())[0]
    try:
        assert await fork.changed_files() == []
        (fork.path / "script").write_text("fork\n")
        (repository / "lines").write_text("user 2\n")
        (repository / "data.bin").write_bytes(b"\2")
        await workspace.follow()
        assert await workspace.take(fork) == ["script"]
        assert (workspace.path / "lines").read_text() == "user 2\n"
        assert await fork.mirror(workspace) == ["data.bin", "lines"]
        assert await fork.changed_files() == await workspace.changed_files() == ["script"]
    finally:
        await fork.discard()


async def test_a_forks_change_of_what_the_user_changed_is_a_conflict(
    repository: Path, open_one: Open
) -> None:
    workspace = await open_one(repository)
    fork = (await workspace.fork())[0]
    try:
        (fork.path / "lines").write_text("fork\n")
        (repository / "lines").write_text("user\n")
        await workspace.follow()
        await workspace.take(fork)
    finally:
        await fork.discard()
    with pytest.raises(WorkspaceConflict, match="'lines'"):
        await workspace.apply()
    assert (repository / "lines").read_text() == "user\n"


async def test_too_much_is_refused_and_seen_again(
    repository: Path, open_one: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = await open_one(repository)
    monkeypatch.setattr(following, "MAX_FILES", 1)
    (repository / "lines").write_text("user\n")
    (repository / "script").write_text("user\n")
    commit(repository)
    with pytest.raises(SandboxError, match="begin anew"):
        await workspace.follow()
    monkeypatch.undo()
    assert (await workspace.follow()).taken == ("lines", "script")


async def test_a_repository_that_became_one_is_named(tmp_path: Path, open_one: Open) -> None:
    place = tmp_path / "plain"
    place.mkdir()
    (place / "one").write_text("1\n")
    workspace = await open_one(place)
    git(place, "init", "-q")
    commit(place)
    with pytest.raises(SandboxError, match="another kind of directory"):
        await workspace.follow()


async def test_the_state_directory_may_lie_inside(repository: Path) -> None:
    state = repository / "state"
    workspace = await open_workspace(repository, state_dir=state, kind="copy")
    try:
        assert not await workspace.follow()
    finally:
        await workspace.discard()
