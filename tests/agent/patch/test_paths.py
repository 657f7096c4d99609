"""Paths from a model stay below the root, with openat2 and without it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tightloop.agent.patch.failure import PatchError
from tightloop.agent.patch.paths import Root, clean_path


@pytest.fixture(params=[True, False], ids=["openat2", "walk"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Root]:
    (tmp_path / "ws").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/secret").write_text("s")
    opened = Root(tmp_path / "ws", use_openat2=request.param)
    yield opened
    opened.close()
    opened.close()


@pytest.mark.parametrize(
    "path",
    [
        "", " ", "../x", "..", ".", "a/../../x", "/etc/passwd", "a/", "a/.", "a/..", "a\nb", "a\0b",
        "C:\\x", "c:/x", "\\\\host\\share", ".git/config", "sub/.git/hooks/x", ".GIT/config",
        ".git./config", "GIT~1/config", ".vscode/tasks.json", ".envrc", "\x1b[31m",
    ],
)  # fmt: skip
def test_forbidden(path: str) -> None:
    with pytest.raises(PatchError) as caught:
        clean_path(path, Path("/ws"))
    assert caught.value.failure.error == "forbidden_path"


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("a", "a"),
        ("./a//b", "a/b"),
        ("a/../b", "b"),
        ("/ws/a/b", "a/b"),
        (".github/x.yml", ".github/x.yml"),
        ("gitignore", "gitignore"),
        ("a b/\u00e9", "a b/\u00e9"),
    ],
)
def test_clean(path: str, clean: str) -> None:
    assert clean == clean_path(path, Path("/ws"))


def test_reading(root: Root) -> None:
    (root.path / "f").write_bytes(b"x")
    state = root.read("f", 10)
    assert state is not None
    assert state.content == b"x"
    assert root.read("g", 10) is None
    assert root.read("no/such/dir", 10) is None


@pytest.mark.parametrize("target", ["../out", "/", "{out}", "/proc/self/root"])
def test_symlinked_parents_do_not_lead_out(root: Root, target: str) -> None:
    out = root.path.parent / "out"
    (root.path / "link").symlink_to(target.format(out=out))
    with pytest.raises(PatchError) as caught:
        root.read("link/secret", 10)
    assert caught.value.failure.error == "forbidden_path"


def test_symlinks_that_stay_inside(root: Root) -> None:
    """Followed where the kernel guards them, refused by the walk."""
    (root.path / "d").mkdir()
    (root.path / "d/f").write_bytes(b"x")
    (root.path / "link").symlink_to("d")
    if root._has_openat2:
        state = root.read("link/f", 10)
        assert state is not None
        assert state.content == b"x"
    else:
        with pytest.raises(PatchError):
            root.read("link/f", 10)


def test_special_files_do_not_block(root: Root) -> None:
    os.mkfifo(root.path / "pipe")
    (root.path / "dir").mkdir()
    (root.path / "link").symlink_to("../out/secret")
    for name in ("pipe", "dir", "link", "dir/../dir"):
        with pytest.raises(PatchError):
            root.read(os.path.normpath(name), 10)


def test_making_directories(root: Root) -> None:
    created: list[str] = []
    os.close(root.open_parent("a/b/f", created))
    assert created == ["a", "a/b"]
    assert (root.path / "a/b").is_dir()


def test_no_descriptor_is_leaked(root: Root) -> None:
    before = len(os.listdir("/proc/self/fd"))
    (root.path / "link").symlink_to("/")
    (root.path / "file").write_bytes(b"")
    for path in ("link/x", "file/x", "no/x", "link/a/b", "file"):
        try:
            root.read(path, 0)
            os.close(root.open_parent(path, []))
        except PatchError:
            continue
    assert before == len(os.listdir("/proc/self/fd"))


def test_true_names(root: Root) -> None:
    """One file has one name, also where its directory does not exist yet."""
    (root.path / "d/e").mkdir(parents=True)
    (root.path / "link").symlink_to("d")
    (root.path / "top").symlink_to(".")
    followed = {"link/f": "d/f", "link/e/f": "d/e/f", "link/n/m/f": "d/n/m/f", "top/f": "f"}
    for path in ("f", "d/f", "n/f"):
        assert path == root.true_name(path)
    for path, name in followed.items():
        assert (name if root._has_openat2 else path) == root.true_name(path)


def test_true_names_stay_inside_and_clear_of_protected_places(tmp_path: Path) -> None:
    (tmp_path / "ws/.git").mkdir(parents=True)
    (tmp_path / "ws/up").symlink_to("..")
    (tmp_path / "ws/g").symlink_to(".git")
    opened = Root(tmp_path / "ws")
    for path in ("up/f", "up/ws/f", "g/config", "g/new/config"):
        with pytest.raises(PatchError) as caught:
            opened.true_name(path)
        assert caught.value.failure.error == "forbidden_path"
    opened.close()


def test_sizes(root: Root) -> None:
    (root.path / "f").write_bytes(b"12345")
    assert root.read("f", 5) is not None
    with pytest.raises(PatchError) as caught:
        root.read("f", 4)
    assert caught.value.failure.error == "too_large"


def test_identity_tells_a_change_from_a_second_name(root: Root) -> None:
    """A hard link must not look like a change: it is how the former file is kept."""
    (root.path / "f").write_bytes(b"1")
    first = root.read("f", 5)
    os.link(root.path / "f", root.path / "g")
    second = root.read("f", 5)
    (root.path / "f").write_bytes(b"12")
    third = root.read("f", 5)
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.identity == second.identity != third.identity
