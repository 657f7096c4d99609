"""Workspaces: the user's tree stays as it is, until everything goes back at once."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.sandbox.conftest import OpenSandbox, commit, git
from tightloop.sandbox.interface import Command, SandboxError
from tightloop.sandbox.workspace import Workspace, WorkspaceConflict, open_workspace

IS_ROOT = os.geteuid() == 0
# An overlay needs privilege; without it the copy is what users get.
KINDS = ["overlay", "copy"] if IS_ROOT else ["copy"]
OpenWorkspace = Callable[..., Awaitable[Workspace]]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where bases and layers live."""
    return tmp_path / "state"


@pytest_asyncio.fixture
async def open_one(repository: Path, state: Path) -> AsyncIterator[OpenWorkspace]:
    """Opens workspaces that are discarded after the test."""
    opened: list[Workspace] = []

    async def open_(kind: str | None = None, source: Path | None = None) -> Workspace:
        workspace = await open_workspace(source or repository, state_dir=state, kind=kind)
        opened.append(workspace)
        return workspace

    yield open_
    for workspace in opened:
        await workspace.discard()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind that is possible here."""
    return str(request.param)


def has_mounts(place: Path) -> bool:
    """Whether anything is mounted there or below."""
    return str(place) in Path("/proc/self/mountinfo").read_text()


def tree(place: Path) -> dict[str, tuple[int, bytes]]:
    """Modes and contents of all files, version control aside."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if name.split("/")[0] == ".git" or (path.is_dir() and not path.is_symlink()):
            continue
        is_link = path.is_symlink()
        content = os.fsencode(os.readlink(path)) if is_link else path.read_bytes()
        found[name] = (0 if is_link else path.stat().st_mode & 0o100, content)
    return found


def mounts() -> str:
    """What the kernel says is mounted."""
    return Path("/proc/self/mountinfo").read_text()


def work(place: Path) -> None:
    """Every kind of change."""
    lines = (place / "lines").read_text()
    (place / "lines").write_text(lines.replace("line 5", "LINE 5").rstrip("\n"))
    (place / "script").chmod(0o644)
    (place / "sub" / "deep" / "file").unlink()
    (place / "sub" / "deep").rmdir()
    (place / "sub").rmdir()
    (place / "sub").write_text("now a file\n")
    (place / "link").unlink()
    (place / "link").mkdir()
    (place / "link" / "inside").write_text("now a directory\n")
    (place / "data.bin").write_bytes(b"\0\3")
    (place / "new dir").mkdir()
    (place / "new dir" / 'a "quoted"\tname: é').write_text("text\n")
    (place / "empty").write_text("")
    (place / "tool").write_text("#!/bin/sh\n")
    (place / "tool").chmod(0o755)
    (place / "pointer").symlink_to("new dir")


CHANGED = [
    "data.bin",
    "empty",
    "lines",
    "link",
    "link/inside",
    'new dir/a "quoted"\tname: é',
    "pointer",
    "script",
    "sub",
    "sub/deep/file",
    "tool",
]


async def test_the_view_equals_the_tree(
    kind: str, repository: Path, open_one: OpenWorkspace
) -> None:
    """Modes, links, uncommitted and untracked files; what git ignores is left out."""
    (repository / "lines").write_text("uncommitted\n")
    (repository / "untracked file").write_text("new\n")
    (repository / "script").unlink()
    (repository / "sub" / "x.o").write_text("ignored")
    expected = {name: value for name, value in tree(repository).items() if name != "sub/x.o"}
    workspace = await open_one(kind)
    assert (workspace.kind, tree(workspace.path)) == (kind, expected)
    assert await workspace.changed_files() == []
    assert await workspace.diff() == ""


async def test_the_diff_is_what_git_would_apply(
    kind: str, repository: Path, open_one: OpenWorkspace, tmp_path: Path
) -> None:
    """Applied to a copy it gives the workspace's tree, and the user's tree was never touched."""
    before = tree(repository)
    workspace = await open_one(kind)
    work(workspace.path)
    assert await workspace.changed_files() == CHANGED
    patch = await workspace.diff(include_binary=True)
    copy = tmp_path / "copy"
    git(tmp_path, "clone", "-q", str(repository), str(copy))
    git(copy, "apply", "-", text=patch)
    assert tree(copy) == tree(workspace.path)
    assert tree(repository) == before
    assert "Binary files a/data.bin and b/data.bin differ" in await workspace.diff()


async def test_apply_brings_everything(
    kind: str, repository: Path, open_one: OpenWorkspace
) -> None:
    """The user's tree equals the workspace's; nothing else is left there."""
    workspace = await open_one(kind)
    work(workspace.path)
    assert await workspace.apply() == CHANGED
    assert tree(repository) == tree(workspace.path)
    assert not list((repository / ".git").glob("tightloop*"))
    assert await workspace.apply() == []


async def test_more_work_after_apply(kind: str, repository: Path, open_one: OpenWorkspace) -> None:
    """What was applied counts as known, and taking it back takes it back there."""
    workspace = await open_one(kind)
    original = (workspace.path / "lines").read_text()
    (workspace.path / "lines").write_text("first\n")
    await workspace.apply()
    (workspace.path / "lines").write_text("second\n")
    assert await workspace.apply() == ["lines"]
    (workspace.path / "lines").write_text(original)
    assert await workspace.apply() == ["lines"]
    assert (repository / "lines").read_text() == original


async def test_a_conflict_writes_nothing(
    kind: str, repository: Path, open_one: OpenWorkspace
) -> None:
    """The files that both sides changed are named; force overrules."""
    workspace = await open_one(kind)
    work(workspace.path)
    (repository / "lines").write_text("mine\n")
    (repository / "tool").write_text("mine too\n")
    before = tree(repository)
    with pytest.raises(WorkspaceConflict, match="'lines', 'tool'") as caught:
        await workspace.apply()
    assert caught.value.paths == ("lines", "tool")
    assert tree(repository) == before
    await workspace.apply(force=True)
    assert tree(repository) == tree(workspace.path)


async def test_a_touch_is_no_change(kind: str, open_one: OpenWorkspace) -> None:
    """Copying up and new times alone are not worth a line in a diff."""
    workspace = await open_one(kind)
    os.utime(workspace.path / "lines")
    (workspace.path / "script").chmod(0o700)
    assert await workspace.changed_files() == []


async def test_build_results_stay_behind(kind: str, open_one: OpenWorkspace) -> None:
    """What git ignores, caches of tools, version control, and things that are no files."""
    workspace = await open_one(kind)
    (workspace.path / "x.o").write_text("object")
    (workspace.path / "__pycache__").mkdir()
    (workspace.path / "__pycache__" / "x.pyc").write_text("code")
    (workspace.path / ".git" / "hooks").mkdir(exist_ok=True)
    (workspace.path / ".git" / "hooks" / "post-checkout").write_text("echo owned")
    (workspace.path / "nested" / ".git").mkdir(parents=True)
    (workspace.path / "nested" / ".git" / "config").write_text("")
    os.mkfifo(workspace.path / "fifo")
    assert await workspace.changed_files() == []
    assert await workspace.special_files() == (["fifo"] if kind == "overlay" else [])


async def test_no_privileged_bit_is_applied(
    kind: str, repository: Path, open_one: OpenWorkspace
) -> None:
    """F14: setuid stays behind."""
    workspace = await open_one(kind)
    (workspace.path / "tool").write_text("x")
    (workspace.path / "tool").chmod(0o4755)
    await workspace.apply()
    assert (repository / "tool").stat().st_mode & 0o7777 == 0o755


async def test_discard_leaves_nothing(kind: str, state: Path, open_one: OpenWorkspace) -> None:
    """No directory and no mount; a second time does nothing."""
    workspace = await open_one(kind)
    (workspace.path / "lines").write_text("changed")
    await workspace.discard()
    await workspace.discard()
    assert os.listdir(state / "workspaces") == []
    assert str(state) not in mounts()
    with pytest.raises(SandboxError, match="discarded"):
        await workspace.diff()


async def test_workspaces_do_not_see_each_other(kind: str, open_one: OpenWorkspace) -> None:
    """They share the base only."""
    left, right = await open_one(kind), await open_one(kind)
    (left.path / "lines").write_text("left")
    assert await right.changed_files() == []


async def test_bases_are_made_once_per_state(
    repository: Path, state: Path, open_one: OpenWorkspace
) -> None:
    """Clean trees by commit, others by content."""
    await open_one()
    await open_one()
    assert len(list((state / "bases").glob("*.used"))) == 1
    (repository / "lines").write_text("changed\n")
    await open_one()
    await open_one()
    assert len(list((state / "bases").glob("*.used"))) == 2
    commit(repository)
    third = await open_one()
    assert len(list((state / "bases").glob("*.used"))) == 3
    assert (third.path / "lines").read_text() == "changed\n"


async def test_a_plain_directory_works_too(
    kind: str, tmp_path: Path, open_one: OpenWorkspace
) -> None:
    """No git needed; keyed by content."""
    place = tmp_path / "plain"
    place.mkdir()
    (place / "file").write_text("one\n")
    (place / "run").write_text("x")
    (place / "run").chmod(0o755)
    workspace = await open_one(kind, place)
    (workspace.path / "file").write_text("two\n")
    (workspace.path / "more").write_text("three\n")
    assert tree(workspace.path)["run"] == (0o100, b"x")
    assert await workspace.apply() == ["file", "more"]
    assert (place / "file").read_text() == "two\n"


async def test_left_overs_of_a_dead_process_are_removed(
    repository: Path, state: Path, open_one: OpenWorkspace
) -> None:
    """A crash leaves a mount and layers; the next start collects them, but no living ones."""
    code = (
        "import asyncio, os, sys; from pathlib import Path\n"
        "from tightloop.sandbox.workspace import open_workspace\n"
        "w = asyncio.run(open_workspace(Path(sys.argv[1]), state_dir=Path(sys.argv[2])))\n"
        "print(w.path.parent.parent.name, flush=True); os.kill(os.getpid(), 9)\n"
    )
    argv = [sys.executable, "-c", code, str(repository), str(state)]
    dead = await asyncio.to_thread(
        subprocess.run, argv, capture_output=True, text=True, check=False
    )
    assert (state / "workspaces" / dead.stdout.strip()).is_dir()
    alive = await open_one()
    another = await open_one()
    names = {workspace.path.parent.parent.name for workspace in (alive, another)}
    assert set(os.listdir(state / "workspaces")) == names
    assert (alive.path / "lines").exists()


async def test_an_interrupted_apply_is_undone_at_the_next_start(
    repository: Path, open_one: OpenWorkspace
) -> None:
    """The journal says what had been moved."""
    before = tree(repository)
    staging = repository / ".git" / "tightloop-apply-x"
    staging.mkdir()
    (staging / "journal.json").write_text('[[0, "lines", true], [1, "fresh", true]]')
    (repository / "lines").rename(staging / "old-0")
    (repository / "lines").write_text("half\n")
    (repository / "fresh").write_text("half\n")
    await open_one()
    assert tree(repository) == before


async def test_refusals_name_the_value_and_the_remedy(
    repository: Path, tmp_path: Path, state: Path
) -> None:
    """Unknown kinds, missing directories, state paths that mount options cannot hold."""
    with pytest.raises(SandboxError, match="unknown workspace kind 'zfs'"):
        await open_workspace(repository, state_dir=state, kind="zfs")
    with pytest.raises(SandboxError, match="is not a directory"):
        await open_workspace(tmp_path / "missing", state_dir=state)
    with pytest.raises(SandboxError, match="choose another one"):
        await open_workspace(repository, state_dir=tmp_path / "a:b", kind="overlay")


async def test_a_sandbox_on_a_workspace(
    kind: str, repository: Path, state: Path, opened: OpenSandbox, open_one: OpenWorkspace
) -> None:
    """F16: layers are out of sight, deletion marks cannot be forged, git and edits work."""
    workspace = await open_one(kind)
    sandbox = await opened(workspace=workspace.path)
    script = (
        "git status --short; git log --oneline | wc -l; sed -i s/line/LINE/ lines; rm -r sub; "
        f"ls {state}/workspaces/*/upper {state}/workspaces/*/work {state}/bases | grep -c . ; "
        "mknod mark c 0 0; mkdir -p d; "
        "python3 -c \"import os; os.setxattr('d', 'user.overlay.opaque', b'y')\"; echo x > d/f"
    )
    result = await sandbox.run(Command(script=script))
    if kind == "overlay":  # in a copy a mark means nothing
        assert "mknod: mark: Operation not permitted" in result.output
    assert result.output.startswith("1\n")
    assert await workspace.changed_files() == ["d/f", "lines", "sub/deep/file"]
    assert (repository / "sub" / "deep" / "file").exists()
    listing = Command(script=f"cat {state}/workspaces/*/upper/lines {state}/bases/*/lines")
    assert "LINE" not in (await sandbox.run(listing)).output


async def test_a_fifo_in_the_place_of_ignore_rules_holds_nobody(
    kind: str, open_one: OpenWorkspace
) -> None:
    """git opens .gitignore of the tree it is shown; reading a fifo would never end."""
    workspace = await open_one(kind)
    (workspace.path / ".gitignore").unlink()
    os.mkfifo(workspace.path / ".gitignore")
    (workspace.path / "new").write_text("x")
    assert await workspace.changed_files() == [".gitignore", "new"]


async def test_risks_are_named(kind: str, open_one: OpenWorkspace) -> None:
    workspace = await open_one(kind)
    (workspace.path / ".envrc").write_text("x")
    (workspace.path / "out").symlink_to("/etc/passwd")
    (workspace.path / "plain").write_text("x")
    assert [risk.path for risk in await workspace.risks()] == [".envrc", "out"]


async def test_a_cancelled_opening_leaves_nothing(repository: Path, state: Path) -> None:
    """The thread that makes it cannot be stopped; what it made is taken away again."""
    opening = asyncio.create_task(open_workspace(repository, state_dir=state))
    await asyncio.sleep(0)  # it is under way now
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert list((state / "workspaces").iterdir()) == []
    assert not has_mounts(state)
