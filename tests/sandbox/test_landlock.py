"""Which roots stay readable; what the kernel makes of it is in test_isolation."""

from pathlib import Path

from tightloop.sandbox import landlock


def test_roots_cover_all_but_the_hidden(tmp_path: Path) -> None:
    """A directory is replaced by its other entries only where it must be."""
    for name in ("a/x", "a/hidden/y", "b/z"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "file").write_text("")
    (tmp_path / "link").symlink_to("a")
    roots = landlock.readable_roots([tmp_path / "a" / "hidden"], tmp_path)
    assert roots == [tmp_path / "a" / "file", tmp_path / "a" / "x", tmp_path / "b"]
    assert landlock.readable_roots([], tmp_path) == [tmp_path]
    assert landlock.readable_roots([tmp_path], tmp_path) == []


def test_the_kernel_knows_landlock() -> None:
    """The suite proves this kind, so it may not pass without it."""
    assert landlock.abi() >= 1, "boot a kernel with Landlock to run the sandbox tests"


def test_rights_grow_with_the_version() -> None:
    """Older kernels refuse bits that they do not know."""
    assert [hex(landlock.handled_rights(v)) for v in (1, 2, 3, 5, 7)] == [
        "0x1fff",
        "0x3fff",
        "0x7fff",
        "0xffff",
        "0xffff",
    ]
