"""Workspaces: the user's tree stays as it is, until everything goes back at once."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.sandbox.conftest import OpenSandbox, commit, git
from tests.sandbox.kills import is_killed
from tightloop.sandbox import entries, layouts, locks
from tightloop.sandbox import workspace as workspace_module
from tightloop.sandbox.bases import base_for
from tightloop.sandbox.collecting import Limits, collect
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


@asynccontextmanager
async def forks_of(parent: Workspace, count: int) -> AsyncIterator[list[Workspace]]:
    """Forks that are discarded whatever happens."""
    forks = await parent.fork(count)
    try:
        yield forks
    finally:
        for fork in forks:
            await fork.discard()


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


async def test_a_discard_that_nobody_waits_for_comes_to_its_end(
    kind: str, state: Path, open_one: OpenWorkspace
) -> None:
    """It counts from its beginning, and nothing of it is left open or lying about."""
    workspace = await open_one(kind)
    discarding = asyncio.create_task(workspace.discard())
    await asyncio.sleep(0)
    discarding.cancel()
    await asyncio.wait([discarding])
    with pytest.raises(SandboxError, match="discarded"):
        await workspace.diff()
    while await asyncio.to_thread(os.listdir, state / "workspaces"):
        pass


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
    moves = '[[0, "lines", true, true, false], [1, "fresh", true, false, false]]'
    (staging / "journal.json").write_text(f'{{"moves": {moves}, "made": []}}')
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


async def test_a_fork_goes_its_own_way(kind: str, open_one: OpenWorkspace) -> None:
    """It begins with every kind of change of its parent; then neither sees the other."""
    parent = await open_one(kind)
    work(parent.path)
    async with forks_of(parent, 2) as (one, two):
        assert tree(one.path) == tree(two.path) == tree(parent.path)
        assert await one.changed_files() == await two.changed_files() == CHANGED
        (one.path / "lines").write_text("one\n")
        (two.path / "tool").unlink()
        (parent.path / "empty").unlink()
        assert "one\n" not in await parent.diff()
        assert [name for name in CHANGED if name != "empty"] == await parent.changed_files()
        assert [name for name in CHANGED if name != "tool"] == await two.changed_files()
        async with forks_of(two, 1) as (grandchild,):
            assert tree(grandchild.path) == tree(two.path)
            await parent.discard()
            assert (grandchild.path / "sub").read_text() == "now a file\n"


async def test_a_candidate_s_result_is_taken(
    kind: str, repository: Path, open_one: OpenWorkspace
) -> None:
    """The parent has it as if it had done the work, and can apply it."""
    parent = await open_one(kind)
    (parent.path / "early").write_text("before the fork\n")
    async with forks_of(parent, 2) as (good, bad):
        work(good.path)
        (good.path / "early").unlink()
        (bad.path / "lines").write_text("worse\n")
        assert await parent.take(good) == sorted([*CHANGED, "early"])
        assert tree(parent.path) == tree(good.path)
    assert await parent.apply() == CHANGED
    assert tree(repository) == tree(parent.path)
    stranger = await open_one(kind)
    with pytest.raises(SandboxError, match="only a fork's result can be taken"):
        await parent.take(stranger)


async def test_forks_of_an_applied_workspace(
    kind: str, repository: Path, open_one: OpenWorkspace
) -> None:
    """What the parent applied is no conflict for them."""
    parent = await open_one(kind)
    (parent.path / "lines").write_text("first\n")
    await parent.apply()
    async with forks_of(parent, 1) as (fork,):
        (fork.path / "lines").write_text("second\n")
        assert await fork.apply() == ["lines"]
    assert (repository / "lines").read_text() == "second\n"


async def test_a_discarded_workspace_has_no_forks(kind: str, open_one: OpenWorkspace) -> None:
    workspace = await open_one(kind)
    await workspace.discard()
    with pytest.raises(SandboxError, match="has been discarded"):
        await workspace.fork()


async def test_what_was_thrown_away_is_deleted(
    kind: str, state: Path, open_one: OpenWorkspace
) -> None:
    """By a thread that nobody waits for, and what it left by the next one that opens."""
    workspace = await open_one(kind)
    (state / "trash" / "of a dead process").mkdir(parents=True)
    await workspace.discard()
    for thread in threading.enumerate():
        if thread.name == "trash":
            await asyncio.to_thread(thread.join)
    assert os.listdir(state / "trash") == []


async def test_a_base_that_was_made_ahead_is_found(
    repository: Path, state: Path, open_one: OpenWorkspace
) -> None:
    """Nothing is made by the one that opens."""
    base = base_for(repository, state / "bases")
    inode = base.stat().st_ino
    workspace = await open_one()
    assert [path.stat().st_ino for path in (state / "bases").iterdir() if path.is_dir()] == [inode]
    assert (workspace.path / "lines").exists()


def test_a_kill_at_any_step_of_opening_leaves_nothing(
    kind: str, repository: Path, tmp_path: Path
) -> None:
    """Every fourth step, from a base that is not there yet to a view that is shown.

    The next one that opens finds no mount, no half-made base and no workspace of the dead.
    """
    before = tree(repository)
    opened, num_kills = False, 0
    for step in range(0, 1000, 4):
        state = tmp_path / str(step)
        opened = not is_killed(step, lambda: workspace_module._open(repository, state, kind))  # noqa: B023
        num_kills += not opened
        collect(state, Limits())
        layouts.empty_trash(state)
        assert not has_mounts(state)
        left = [path for path in state.rglob("*") if path.parent.name in ("workspaces", "trash")]
        assert left == list(state.glob("bases/making-*")) == []
        if opened:
            break
    assert (opened, num_kills > 10) == (True, True)
    assert tree(repository) == before


def test_a_kill_at_any_step_of_discarding_leaves_nothing(
    kind: str, repository: Path, tmp_path: Path
) -> None:
    """What was not thrown away in time is thrown away by the next one."""
    state = tmp_path / "state"

    def open_and_discard() -> None:
        workspace = workspace_module._open(repository, state, kind)
        (workspace.path / "lines").write_text("x")
        workspace_module._discard(workspace._layout, state)

    open_and_discard()
    step = 0
    while is_killed(step, open_and_discard):
        step += 1
        collect(state, Limits())
        layouts.empty_trash(state)
        assert not has_mounts(state)
        assert os.listdir(state / "workspaces") == os.listdir(state / "trash") == []
    assert step > 10


@pytest.mark.parametrize("kind", KINDS)
async def test_forks_can_be_prepared(kind: str, repository: Path, tmp_path: Path) -> None:
    """They begin with the state of when they are made; what is never used goes with the rest."""
    state = tmp_path / "state"
    workspace = await open_workspace(repository, state_dir=state, kind=kind)
    await workspace.prepare_forks(2)
    assert len(os.listdir(state / "workspaces")) == 3
    (workspace.path / "later").write_text("later")
    [fork] = await workspace.fork()
    assert (fork.path / "later").read_text() == "later"
    assert len(os.listdir(state / "workspaces")) == 3
    await workspace.discard()
    assert os.listdir(state / "workspaces") == [fork.path.parents[1].name]
    await fork.discard()


async def test_directories_and_links_change_places(
    kind: str, repository: Path, open_one: OpenWorkspace, tmp_path: Path
) -> None:
    """What a link leads to is not taken for a file of the workspace, nor for one of the repository.

    Neither is a file of the host shown in a diff, nor a new one left out for being equal to what
    lay behind the link that it replaces.
    """
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "file").write_text("of the host\n")
    (repository / "behind").mkdir()
    (repository / "behind" / "file").write_text("same\n")
    (repository / "pointer").symlink_to("behind")
    commit(repository)
    workspace = await open_one(kind)
    shutil.rmtree(workspace.path / "sub")
    (workspace.path / "sub").symlink_to(elsewhere)
    (workspace.path / "pointer").unlink()
    shutil.copytree(workspace.path / "behind", workspace.path / "pointer")
    expected = ["pointer", "pointer/file", "sub", "sub/deep/file"]
    assert expected == await workspace.changed_files()
    assert "of the host" not in await workspace.diff()
    assert sorted(expected) == sorted(await workspace.apply())
    assert tree(workspace.path) == tree(repository)
    assert (repository / "pointer" / "file").read_text() == "same\n"
    assert (elsewhere / "deep" / "file").read_text() == "of the host\n"


async def test_a_fork_in_which_links_changed_places_is_taken(
    kind: str, repository: Path, open_one: OpenWorkspace
) -> None:
    """As into the repository."""
    workspace = await open_one(kind)
    async with forks_of(workspace, 1) as [fork]:
        (fork.path / "other" / "deep").mkdir(parents=True)
        shutil.copy(fork.path / "sub" / "deep" / "file", fork.path / "other" / "deep" / "file")
        shutil.rmtree(fork.path / "sub")
        (fork.path / "sub").symlink_to("other")
        assert sorted(await workspace.take(fork)) == ["other/deep/file", "sub", "sub/deep/file"]
        assert tree(workspace.path) == tree(fork.path)


async def test_what_git_ignores_is_not_read(
    kind: str, open_one: OpenWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However large it is; what is not ignored and too large is named."""
    monkeypatch.setattr(entries.compare, "__kwdefaults__", {"max_bytes": 1000})
    workspace = await open_one(kind)
    (workspace.path / "built.o").write_bytes(bytes(2000))
    (workspace.path / "small").write_text("x")
    assert await workspace.changed_files() == ["small"]
    (workspace.path / "large").write_bytes(bytes(2000))
    with pytest.raises(SandboxError, match="'large' among them: delete large files"):
        await workspace.diff()


async def test_two_may_discard_it_at_once(kind: str, repository: Path, state: Path) -> None:
    """And one that is cancelled meanwhile has done it all the same; nothing is left."""
    workspace = await open_workspace(repository, state_dir=state, kind=kind)
    await workspace.prepare_forks(2)
    assert workspace.num_prepared_forks == 2
    ends = [asyncio.create_task(workspace.discard()) for _ in range(3)]
    await asyncio.sleep(0)
    ends[0].cancel()
    await asyncio.wait(ends)
    assert [end.cancelled() for end in ends] == [True, False, False]
    assert [end.result() for end in ends[1:]] == [None, None]
    assert os.listdir(state / "workspaces") == []
    assert workspace.num_prepared_forks == 0


async def test_what_is_prepared_too_late_goes_as_well(repository: Path, state: Path) -> None:
    """A discard overtakes it, or its caller is cancelled; the directories have no other owner."""
    workspace = await open_workspace(repository, state_dir=state, kind="copy")
    with locks.locked(state / "lock"):
        preparing = asyncio.create_task(workspace.prepare_forks())
        await asyncio.sleep(0)
        preparing.cancel()
        await workspace.discard()
    await asyncio.wait([preparing])
    assert preparing.cancelled()
    assert os.listdir(state / "workspaces") == []


async def test_names_that_no_mount_option_can_hold_make_a_copy(
    repository: Path, tmp_path: Path
) -> None:
    """With the reason; asked for an overlay it is an error."""
    state = tmp_path / "a,b"
    workspace = await open_workspace(repository, state_dir=state)
    assert (workspace.kind, "has a comma" in workspace.reason) == ("copy", True)
    await workspace.discard()
    with pytest.raises(SandboxError, match="has a comma"):
        await open_workspace(repository, state_dir=state, kind="overlay")


async def test_names_that_are_no_text_are_refused(repository: Path, tmp_path: Path) -> None:
    """Records and messages could not hold them."""
    name = os.fsdecode(b"a\xe9")
    (tmp_path / name).mkdir()
    for place, state in ((tmp_path / name, tmp_path / "state"), (repository, tmp_path / name)):
        with pytest.raises(SandboxError, match="not UTF-8"):
            await open_workspace(place, state_dir=state)


async def test_where_nothing_can_be_written_it_says_so(repository: Path, tmp_path: Path) -> None:
    """Whatever stands in the way in the state directory."""
    (tmp_path / "state").write_text("a file")
    with pytest.raises(SandboxError, match="choose another state directory"):
        await open_workspace(repository, state_dir=tmp_path / "state")
