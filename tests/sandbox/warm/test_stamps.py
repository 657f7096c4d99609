"""Changes are seen whatever sizes and times say."""

import os
from pathlib import Path

import pytest

from tightloop.sandbox.warm import stamps
from tightloop.sandbox.warm.stamps import Seen, TooManyFiles, Tree, is_below, stamp


def test_stamps_change_with_the_file(tmp_path: Path) -> None:
    """Even when size and modification time are put back."""
    file = tmp_path / "file"
    file.write_text("a")
    before, old = stamp(str(file)), file.stat()
    replacement = tmp_path / "new"
    replacement.write_text("b")
    os.utime(replacement, ns=(old.st_atime_ns, old.st_mtime_ns))
    replacement.rename(file)
    assert before != stamp(str(file))
    file.unlink()
    assert stamp(str(file)) == ()


def test_a_directory_changes_with_its_names(tmp_path: Path) -> None:
    """An installed package counts; cached byte code and what a first test run leaves do not."""
    before = stamp(str(tmp_path))
    for name in ("__pycache__", ".pytest_cache", ".hypothesis"):
        (tmp_path / name).mkdir()
    assert stamp(str(tmp_path)) == before
    (tmp_path / "package-1.0.dist-info").mkdir()
    assert stamp(str(tmp_path)) != before


def test_whole_components_decide_what_is_below() -> None:
    """``proj`` is not a parent of ``proj2``."""
    assert is_below("/a/proj/x", "/a/proj")
    assert not is_below("/a/proj2/x", "/a/proj")


def test_a_young_file_is_compared_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writes in one tick of the clock leave every number as it was."""
    file = tmp_path / "file"
    file.write_text("a")
    monkeypatch.setattr(stamps, "stamp", lambda path: (1, 2, 1, 7))
    monkeypatch.setattr(stamps, "is_young", lambda status: True)
    seen = Seen(str(file))
    assert not seen.has_changed(str(file))
    file.write_text("b")
    assert seen.has_changed(str(file))


def test_an_aged_file_is_known_by_its_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read once more when it has aged, then no more."""
    file = tmp_path / "file"
    file.write_text("a")
    seen = Seen(str(file))
    assert seen.content is not None
    monkeypatch.setattr(stamps, "is_young", lambda status: False)
    assert not seen.has_changed(str(file))
    assert seen.content is None


def test_a_tree_sees_new_missing_and_changed_files(tmp_path: Path) -> None:
    """Directories too; caches of tools and environments are not looked at."""
    (tmp_path / "a.py").write_text("a")
    (tmp_path / "sub").mkdir()
    tree = Tree(str(tmp_path))
    for name in (".git", "__pycache__", ".pytest_cache", "env"):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    (tmp_path / "cached.pyc").write_text("")
    assert tree.changes() == ("", [])
    (tmp_path / "a.py").write_text("b")
    assert tree.changes() == ("", [str(tmp_path / "a.py")])
    (tmp_path / "sub" / "new").mkdir()
    assert tree.changes() == (f"{tmp_path}/sub/new/", [])
    (tmp_path / "sub" / "new").rmdir()
    (tmp_path / "a.py").unlink()
    assert tree.changes() == (str(tmp_path / "a.py"), [])


def test_links_are_followed_for_their_content_only(tmp_path: Path) -> None:
    """A directory that contains itself ends, a broken link is a file like others."""
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "broken").symlink_to("nowhere")
    tree = Tree(str(tmp_path))
    assert set(tree.seen) == {str(tmp_path / "loop"), str(tmp_path / "broken")}
    assert tree.changes() == ("", [])
    (tmp_path / "broken").unlink()
    (tmp_path / "broken").symlink_to("/etc/passwd")
    assert tree.changes() == ("", [str(tmp_path / "broken")])


def test_what_would_make_a_reader_wait_is_not_read(tmp_path: Path) -> None:
    """A fifo that nobody writes to is listed like any other file."""
    os.mkfifo(tmp_path / "fifo")
    tree = Tree(str(tmp_path))
    assert tree.changes() == ("", [])
    assert stamps.digest(str(tmp_path / "fifo")) == b""


def test_a_tree_has_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking through it before every run must not take longer than the run."""
    monkeypatch.setattr(stamps, "_MAX_FILES", 3)
    for number in range(4):
        (tmp_path / str(number)).touch()
    with pytest.raises(TooManyFiles, match="more than 3"):
        Tree(str(tmp_path))


def test_names_are_looked_at_anew_when_the_directory_has_changed(tmp_path: Path) -> None:
    """Also far below, also once the directory is old enough to be believed."""
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    for directory in (tmp_path, below.parent, below):
        os.utime(directory, ns=(0, 0))
    tree = Tree(str(tmp_path))
    assert tree.changes() == ("", [])
    (below / "__pycache__").mkdir()
    assert tree.changes() == ("", [])
    (below / "new").touch()
    assert tree.changes() == (str(below / "new"), [])
    (below / "new").unlink()
    assert tree.changes() == ("", [])
    (below / "__pycache__").rmdir()
    below.rmdir()
    assert tree.changes()[0] == f"{below}/"


def test_files_that_are_not_watched_do_not_count(tmp_path: Path) -> None:
    """Unless they come or go."""
    for name in "ab":
        (tmp_path / name).write_text(name)
    tree = Tree(str(tmp_path))
    tree.watch_only(lambda path: path.endswith("a"))
    (tmp_path / "b").write_text("other")
    assert tree.changes() == ("", [])
    (tmp_path / "a").write_text("other")
    assert tree.changes() == ("", [str(tmp_path / "a")])
    (tmp_path / "b").unlink()
    assert tree.changes() == (str(tmp_path / "b"), [])
