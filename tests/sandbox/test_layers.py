"""A written layer becomes one that only adds."""

import os
import shutil
from pathlib import Path

import pytest

from tests.sandbox.conftest import git
from tightloop.sandbox import layers
from tightloop.sandbox.interface import SandboxError


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A layer and a base that has ``top`` and ``dir/one``."""
    layer, base = tmp_path / "layer", tmp_path / "base"
    layer.mkdir()
    (base / "dir").mkdir(parents=True)
    (base / "top").write_text("x")
    (base / "dir" / "one").write_text("x")
    return layer, base


def names(place: Path) -> list[str]:
    """Everything below."""
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*"))


def test_only_what_base_lacks_stays(pair: tuple[Path, Path]) -> None:
    """Changes and deletions are named and gone; a touched file is gone without a word."""
    layer, base = pair
    (layer / "dir" / "sub").mkdir(parents=True)
    (layer / "dir" / "one").write_text("changed")
    (layer / "dir" / "sub" / "new").write_text("new")
    (layer / "top").write_text("x")
    (layer / ".venv" / "bin").mkdir(parents=True)
    (layer / ".venv" / "bin" / "python").symlink_to("/usr/bin/python3")
    (layer / ".git").mkdir()
    (layer / ".git" / "index").write_text("")
    os.mkfifo(layer / "fifo")
    assert layers.keep_what_is_new(layer, base) == ["dir/one"]
    expected = [".venv", ".venv/bin", ".venv/bin/python", "dir", "dir/sub", "dir/sub/new"]
    assert names(layer) == expected
    assert layers.new_roots(layer, base) == [".venv", "dir/sub"]


def test_deletion_marks_and_replaced_kinds_are_base_s_again(pair: tuple[Path, Path]) -> None:
    """Under other layers a mark would delete what the set-up has no say in."""
    layer, base = pair
    os.mknod(layer / "dir", 0o020000, os.makedev(0, 0))
    (layer / "top").mkdir()
    (layer / "top" / "inside").write_text("x")
    assert layers.keep_what_is_new(layer, base) == ["top"]
    assert names(layer) == []


def test_opaque_marks_go(pair: tuple[Path, Path]) -> None:
    layer, base = pair
    (layer / "dir").mkdir()
    (layer / "dir" / "new").write_text("x")
    os.setxattr(layer / "dir", "user.overlay.opaque", b"y")
    layers.keep_what_is_new(layer, base)
    assert os.listxattr(layer / "dir") == []


def test_what_a_layer_adds_is_hidden_from_git(tmp_path: Path, repository: Path) -> None:
    """Names that mean something to git are escaped."""
    layer = tmp_path / "layer"
    layer.mkdir()
    (repository / ".git" / "info" / "exclude").unlink()  # a base has none
    for name in ("env", "odd *[x] name", "!bang"):
        (layer / name).write_text("x")
    layers.hide_from_git(layer, repository)
    layers.copy_tree(layer, repository)
    assert git(repository, "status", "--porcelain") == ""
    assert layers.new_roots(layer, repository) == []


def test_sizes_count_what_takes_room(tmp_path: Path) -> None:
    """A second name of a file elsewhere takes none."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"x" * 10_000)
    (tmp_path / "a" / "link").symlink_to("file")
    num_bytes, num_files = layers.size_of(tmp_path / "a")
    assert (num_bytes >= 10_000, num_files) == (True, 2)
    os.link(tmp_path / "a" / "file", tmp_path / "other")
    assert layers.size_of(tmp_path / "a")[0] < 10_000


def test_secrets_are_found_in_files(tmp_path: Path) -> None:
    """By value; what is too short to be one would be found everywhere."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "pip.conf").write_text("url = https://u:s3cr3t-value@host/")
    secrets = {"TOKEN": "s3cr3t-value", "OTHER": "not-in-there", "SHORT": "u"}
    assert layers.files_with(secrets, tmp_path) == [("TOKEN", "dir/pip.conf")]
    assert layers.files_with({}, tmp_path) == []


def test_a_tree_without_permissions_can_be_removed(tmp_path: Path) -> None:
    """As overlayfs leaves its work directory."""
    (tmp_path / "work" / "work").mkdir(parents=True)
    (tmp_path / "work" / "work").chmod(0)
    layers.remove_tree(tmp_path / "work")
    assert names(tmp_path) == []


def test_a_copy_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"copying .* failed: .*No such file"):
        layers.copy_tree(tmp_path / "gone", tmp_path)


def all_of(place: Path) -> dict[str, object]:
    """Everything that a copy keeps."""
    found: dict[str, object] = {}
    for path in (place, *sorted(place.rglob("*"))):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        attributes = {}
        if not path.is_symlink():
            attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)}
        times = None if path.is_symlink() else status.st_mtime_ns
        owner = (status.st_uid, status.st_gid)
        found[str(path.relative_to(place))] = (
            *(status.st_mode, status.st_rdev, owner, times),
            *(attributes, content),
        )
    return found


@pytest.mark.parametrize("num_files", [3, 300], ids=["few", "many"])
def test_a_copy_keeps_everything(tmp_path: Path, num_files: int) -> None:
    """Modes, times, attributes, links and marks of deletion, whichever way it is done."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "dir" / "deep").mkdir(parents=True)
    target.mkdir()
    for number in range(num_files):
        (source / "dir" / f"file{number}").write_text(f"{number}")
    (source / "dir" / "file0").chmod(0o4755)
    (source / "dir" / "file1").chmod(0o400)
    (source / "dir" / "link").symlink_to("/nowhere")
    os.mknod(source / "gone", 0o020000, 0)
    os.link(source / "gone", source / "gone too")
    for name in ("", "dir", "dir/file2"):
        os.setxattr(source / name, "user.overlay.opaque", b"y")
    (source / "dir" / "deep").chmod(0o555)
    os.utime(source / "dir", ns=(1, 2))
    os.utime(source, ns=(3, 4))
    layers.copy_tree(source, target)
    assert all_of(source) == all_of(target)


def test_a_copy_writes_through_no_link(tmp_path: Path) -> None:
    """What lies in the way is replaced."""
    source, target, other = (tmp_path / name for name in ("source", "target", "other"))
    for place in (source, target, other):
        place.mkdir()
    (source / "file").write_text("new")
    (other / "file").write_text("old")
    (target / "file").symlink_to(other / "file")
    layers.copy_tree(source, target)
    assert (other / "file").read_text() == "old"
    assert (target / "file").read_text() == "new"


def test_a_link_that_comes_meanwhile_is_not_copied_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the place of a file nor of a directory above it; nor is a fifo waited for."""
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("of the host")
    listed = layers._few_entries

    def exchange(number: int) -> None:
        if number == 0:
            shutil.rmtree(source / "sub")
            (source / "sub").symlink_to(elsewhere)
            return
        (source / "sub" / "file").unlink()
        if number == 1:
            (source / "sub" / "file").symlink_to(elsewhere / "file")
        else:
            os.mkfifo(source / "sub" / "file")

    for number in range(3):
        (source / "sub").mkdir(parents=True)
        (source / "sub" / "file").write_text("of the inside")
        target = tmp_path / f"target-{number}"
        target.mkdir()

        def then_exchanged(place: Path, number: int = number) -> object:
            found = listed(place)
            exchange(number)
            return found

        monkeypatch.setattr(layers, "_few_entries", then_exchanged)
        if number < 2:
            with pytest.raises(SandboxError, match="copying"):
                layers.copy_tree(source, target)
        else:
            layers.copy_tree(source, target)
        assert "of the host" not in [path.read_text() for path in target.rglob("file")]
        monkeypatch.undo()
        _away(source)


def _away(source: Path) -> None:
    if (source / "sub").is_symlink():
        (source / "sub").unlink()
    shutil.rmtree(source)
