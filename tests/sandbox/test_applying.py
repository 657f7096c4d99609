"""All or nothing, also when the tree resists."""

import os
from pathlib import Path

import pytest

from tightloop.sandbox.applying import WorkspaceConflict, apply_changes, recover
from tightloop.sandbox.entries import Change, Entry


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
    original = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target.name == "z":
            raise OSError(28, "No space left on device")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", failing)
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
