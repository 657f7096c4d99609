"""All or nothing, also when the tree resists or the process dies."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.kills import is_killed
from tightloop.sandbox import applying
from tightloop.sandbox.applying import WorkspaceConflict, apply_changes, recover
from tightloop.sandbox.entries import Change, Entry
from tightloop.sandbox.interface import SandboxError


def names(tree: Path) -> list[str]:
    """All files and directories."""
    return sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*"))


def test_links_on_the_way_are_refused(tmp_path: Path) -> None:
    """F3, F5: a directory of the user that leads elsewhere is not followed."""
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    tree.mkdir()
    elsewhere.mkdir()
    (tree / "link").symlink_to(elsewhere)
    with pytest.raises(WorkspaceConflict, match="'link/file'"):
        apply_changes([Change("link/file", None, Entry(b"x"))], tree, force=True)
    assert names(elsewhere) == []


def test_a_directory_with_the_users_files_is_not_replaced(tmp_path: Path) -> None:
    """Files that nobody asked to remove stay."""
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "mine").write_text("mine")
    with pytest.raises(WorkspaceConflict, match="'place'"):
        apply_changes([Change("place", None, Entry(b"x"))], tmp_path, force=True)
    assert names(tmp_path) == ["place", "place/mine"]


def test_an_error_half_way_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was moved goes back; new directories go away."""
    (tmp_path / "a").write_text("old")
    (tmp_path / "blocked").mkdir()
    original = os.rename

    def failing(source: str, target: str, **places: int) -> None:
        if Path(target).name == "z":
            raise OSError(28, "No space left on device")
        original(source, target, **places)

    monkeypatch.setattr(os, "rename", failing)
    changes = [
        Change("a", Entry(b"old"), Entry(b"new")),
        Change("dir/sub/b", None, Entry(b"new")),
        Change("z", None, Entry(b"new")),
    ]
    with pytest.raises(OSError, match="No space"):
        apply_changes(changes, tmp_path)
    assert names(tmp_path) == ["a", "blocked"]
    assert (tmp_path / "a").read_text() == "old"


def test_permissions_of_the_user_are_kept(tmp_path: Path) -> None:
    """Only the executable bit is the workspace's business."""
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o640)
    apply_changes([Change("a", Entry(b"old"), Entry(b"new", is_executable=True))], tmp_path)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o750


def test_directories_that_became_empty_go(tmp_path: Path) -> None:
    """As git does it; those with other files stay."""
    for name in ("a/b/c", "d/e", "d/keep"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    changes = [Change("a/b/c", Entry(b"x"), None), Change("d/e", Entry(b"x"), None)]
    assert apply_changes(changes, tmp_path) == ["a/b/c", "d/e"]
    assert names(tmp_path) == ["d", "d/keep"]


def test_recover_without_left_overs_does_nothing(tmp_path: Path) -> None:
    """And a staging directory without a journal is just removed: nothing had been moved."""
    (tmp_path / "tightloop-apply-x").mkdir()
    (tmp_path / "tightloop-apply-x" / "new-0").write_text("x")
    assert recover(tmp_path) == 0
    assert os.listdir(tmp_path) == []


def test_a_file_made_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check and the move: the last look is right before each of them."""
    (tmp_path / "a").write_text("old")
    original = applying._write_journal

    def and_then_the_user_saves(staging: Path, plan: applying._Plan) -> None:
        original(staging, plan)
        (tmp_path / "a").write_text("mine")

    monkeypatch.setattr(applying, "_write_journal", and_then_the_user_saves)
    with pytest.raises(WorkspaceConflict, match="'a'"):
        apply_changes([Change("a", Entry(b"old"), Entry(b"new"))], tmp_path)
    assert (names(tmp_path), (tmp_path / "a").read_text()) == (["a"], "mine")


def test_what_stands_in_the_way_of_undoing_is_named(tmp_path: Path) -> None:
    """Nothing is thrown away to make room."""
    staging = tmp_path / "tightloop-apply-x"
    staging.mkdir()
    (staging / "journal.json").write_text(
        '{"moves": [[0, "a", true, true, false]], "made": []}', encoding="utf-8"
    )
    (staging / "old-0").write_text("old")
    (tmp_path / "a").mkdir()
    with pytest.raises(SandboxError, match="move away what stands there"):
        recover(tmp_path)
    (tmp_path / "a").rmdir()
    assert recover(tmp_path) == 1
    assert (names(tmp_path), (tmp_path / "a").read_text()) == (["a"], "old")


@pytest.mark.parametrize(
    "journal",
    [
        '{"moves": [[0, "../out/x", false, true, false]], "made": []}',
        '{"moves": [[0, "a/../../out/x", false, true, false]], "made": []}',
        '{"moves": [[0, "OUT/x", false, true, false]], "made": []}',
        '{"moves": [[0, "link/x", false, true, false]], "made": []}',
        '{"moves": [[0, ".git/x", false, true, false]], "made": []}',
        '{"moves": [[0, "sub/.git/x", false, true, false]], "made": []}',
        '{"moves": [["/../../../out/x", "a", false, true, false]], "made": []}',
        '{"moves": [], "made": ["../out"]}',
        '{"moves": [[0]], "made": []}',
        '{"moves": 1}',
        "[]",
        "{",
    ],
)
@pytest.mark.parametrize("name", ["journal.json", "done.json"])
def test_a_journal_that_came_with_the_tree_moves_nothing(
    tmp_path: Path, journal: str, name: str
) -> None:
    """F13: whoever packed the tree could write anywhere with it. A finished one moves nothing."""
    tree, out = tmp_path / "tree", tmp_path / "out"
    staging = tree / "tightloop-apply-x"
    for place in (staging, out, tree / ".git", tree / "sub" / ".git"):
        place.mkdir(parents=True)
    staging.rename(tree / ".git" / staging.name)
    staging = tree / ".git" / staging.name
    (tree / "link").symlink_to(out)
    (staging / name).write_text(journal.replace("OUT", str(out)))
    (staging / "old-0").write_text("planted")
    before = names(tmp_path)
    if name == "done.json" and "link/x" in journal:
        recover(tree)
    else:
        with pytest.raises(SandboxError, match="was not made by tightloop"):
            recover(tree)
        assert before == names(tmp_path)
    assert names(out) == []


def test_nothing_behind_a_link_is_taken_away(tmp_path: Path) -> None:
    """A new file behind a link that is planned to be new: what is there is somebody else's."""
    tree, out = tmp_path / "tree", tmp_path / "out"
    staging = tree / "tightloop-apply-x"
    for place in (staging, out):
        place.mkdir(parents=True)
    (out / "x").write_text("mine")
    (tree / "link").symlink_to(out)
    (staging / "journal.json").write_text(
        '{"moves": [[0, "link/x", true, false, false]], "made": ["link"]}'
    )
    recover(tree)
    assert (out / "x").read_text() == "mine"


def test_a_link_that_becomes_a_directory_leaves_what_it_led_to(tmp_path: Path) -> None:
    """Also when the user is overruled, and when it is undone."""
    tree, out = tmp_path / "tree", tmp_path / "out"
    tree.mkdir()
    out.mkdir()
    (out / "x").write_text("mine")
    (tree / "link").symlink_to(out)
    link = Entry(os.fsencode(out), is_link=True)
    changes = [Change("link", link, None), Change("link/x", None, Entry(b"new"))]
    assert apply_changes(changes, tree, force=True) == ["link", "link/x"]
    assert (tree / "link" / "x").read_text() == "new"
    assert not (tree / "link").is_symlink()
    assert (out / "x").read_text() == "mine"


# -- a real kill at every step


def make_tree(tree: Path) -> None:
    """A bit of everything, with directories that are nobody else's business."""
    for name in ("kept", "edited", "gone/deep/file", "gone/too", "dir/one", "dir/sub/two", "file"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(f"old {name}")
    (tree / "edited").chmod(0o640)
    (tree / "link").symlink_to("kept")
    (tree / "dir").chmod(0o700)
    (tree / "empty").mkdir()


CHANGES = [
    Change("dir", None, Entry(b"a file now")),
    Change("dir/one", Entry(b"old dir/one"), None),
    Change("dir/sub/two", Entry(b"old dir/sub/two"), None),
    Change("edited", Entry(b"old edited"), Entry(b"new")),
    Change("empty/new", None, Entry(b"new")),
    Change("file", Entry(b"old file"), None),
    Change("file/inside", None, Entry(b"new", is_executable=True)),
    Change("fresh/sub/new", None, Entry(b"new")),
    Change("gone/deep/file", Entry(b"old gone/deep/file"), None),
    Change("gone/too", Entry(b"old gone/too"), None),
    Change("link", Entry(b"kept", is_link=True), Entry(b"dir", is_link=True)),
]


def snapshot(tree: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below: kind and mode, and content or target."""
    found = {}
    for path in sorted(tree.rglob("*")):
        mode = path.lstat().st_mode
        if path.is_symlink():
            content = os.fsencode(os.readlink(path))
        else:
            content = path.read_bytes() if path.is_file() else b""
        found[path.relative_to(tree).as_posix()] = (mode, content)
    return found


def trees_killed_at_every_step(place: Path) -> Iterator[Path]:
    """One tree for each moment at which the process can die, then the one that was finished."""
    for step in range(1000):
        tree = place / str(step)
        tree.mkdir()
        make_tree(tree)
        was_killed = is_killed(step, lambda tree=tree: apply_changes(CHANGES, tree))  # type: ignore[misc]
        yield tree
        if not was_killed:
            return


@pytest.fixture
def before_and_after(tmp_path: Path) -> tuple[dict[str, tuple[int, bytes]], ...]:
    """The two trees that anybody may ever see after a recovery."""
    tree = tmp_path / "calm"
    tree.mkdir()
    make_tree(tree)
    before = snapshot(tree)
    assert apply_changes(CHANGES, tree) == [change.path for change in CHANGES]
    return before, snapshot(tree)


def test_a_kill_at_any_step_leaves_all_or_nothing(
    tmp_path: Path, before_and_after: tuple[dict[str, tuple[int, bytes]], ...]
) -> None:
    """Old before the one step that decides, new after it, down to modes and empty directories."""
    before, after = before_and_after
    seen = []
    for tree in trees_killed_at_every_step(tmp_path):
        recover(tree)
        found = snapshot(tree)
        assert found in (before, after)
        seen.append(found == after)
        assert recover(tree) == 0
    assert seen == sorted(seen)  # never back to the old tree once it was done
    assert seen.count(False) > 40
    assert seen.count(True) > 3


def test_a_kill_at_any_step_of_the_recovery_changes_nothing(
    tmp_path: Path, before_and_after: tuple[dict[str, tuple[int, bytes]], ...]
) -> None:
    """Undoing may itself be cut short anywhere; every ninth crash, every step after it."""
    num_kills = 0
    for number, tree in enumerate(trees_killed_at_every_step(tmp_path)):
        if number % 9:
            continue
        step = 0
        while is_killed(step, lambda tree=tree: recover(tree)):  # type: ignore[misc]
            num_kills += 1
            step += 1
        assert snapshot(tree) in before_and_after
    assert num_kills > 50


def test_two_processes_do_not_undo_each_other(tmp_path: Path) -> None:
    """A recovery waits for an application that is under way."""
    (tmp_path / "a").write_text("old")
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with applying._alone(tmp_path):
                (tmp_path / "tightloop-apply-x").mkdir()
                (tmp_path / "tightloop-apply-x" / "journal.json").write_text("half")
                os.write(write_end, b"!")
                (tmp_path / "tightloop-apply-x" / "journal.json").unlink()
                (tmp_path / "tightloop-apply-x").rmdir()
        finally:
            os._exit(0)
    os.read(read_end, 1)
    assert recover(tmp_path) == 0  # would fail to read the journal that is not ours
    os.waitpid(pid, 0)
    os.close(read_end)
    os.close(write_end)
    assert names(tmp_path) == ["a"]


def test_a_link_in_the_place_of_a_staged_file_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that runs in the tree may put one there in time."""
    tree, victim = tmp_path / "tree", tmp_path / "victim"
    tree.mkdir()
    victim.write_text("of the host")
    make = tempfile.mkdtemp

    def planted(**wanted: str) -> str:
        staging = make(**wanted)
        os.symlink(victim, os.path.join(staging, "new-0"))
        return staging

    monkeypatch.setattr(tempfile, "mkdtemp", planted)
    with pytest.raises(FileExistsError):
        apply_changes([Change("file", None, Entry(b"of the inside"))], tree)
    assert victim.read_text() == "of the host"
    assert list(tree.iterdir()) == []


@pytest.mark.parametrize("change", ["new", "changed", "removed", "directory"])
def test_a_directory_that_becomes_a_link_meanwhile_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """After everything was checked: nothing is written, saved or removed behind it."""
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    for place in (tree / "sub", elsewhere):
        place.mkdir(parents=True)
        (place / "file").write_bytes(b"old")
    write_journal = applying._write_journal

    def exchange(*arguments: Any) -> None:
        write_journal(*arguments)
        (tree / "sub").rename(tree / "moved")
        (tree / "sub").symlink_to(elsewhere)

    monkeypatch.setattr(applying, "_write_journal", exchange)
    monkeypatch.setattr(applying, "_signature", lambda place: None)  # the last look saw nothing yet
    wanted = {
        "new": Change("sub/other", None, Entry(b"new")),
        "changed": Change("sub/file", Entry(b"old"), Entry(b"new")),
        "removed": Change("sub/file", Entry(b"old"), None),
        "directory": Change("sub/deep/file", None, Entry(b"new")),
    }
    with pytest.raises(WorkspaceConflict, match="sub"):
        apply_changes([wanted[change]], tree)
    assert [path.name for path in elsewhere.iterdir()] == ["file"]
    assert (elsewhere / "file").read_bytes() == b"old"
    assert (elsewhere / "file").stat().st_nlink == 1
