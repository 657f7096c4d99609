"""Reading an upper layer; layers are written by hand where no privilege is at hand."""

import os
from pathlib import Path

import pytest

from tightloop.sandbox import overlay
from tightloop.sandbox.interface import SandboxError


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, Path]:
    """A base with files in two levels, and an empty upper layer."""
    base, upper = tmp_path / "base", tmp_path / "upper"
    for name in ("top", "dir/one", "dir/sub/two"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text("x")
    upper.mkdir()
    return base, upper


def test_new_and_changed_files_are_candidates(layers: tuple[Path, Path]) -> None:
    """Directories that were only passed through are not."""
    base, upper = layers
    (upper / "dir" / "sub").mkdir(parents=True)
    (upper / "dir" / "sub" / "two").write_text("y")
    (upper / "new").write_text("n")
    assert overlay.changed_candidates(base, upper) == {"dir/sub/two", "new"}


def test_a_file_in_place_of_a_directory_hides_all_below(layers: tuple[Path, Path]) -> None:
    """A deletion mark does the same: it is no directory either."""
    base, upper = layers
    (upper / "dir").write_text("now a file")
    assert overlay.changed_candidates(base, upper) == {"dir", "dir/one", "dir/sub/two"}


def test_an_opaque_directory_hides_the_base(layers: tuple[Path, Path]) -> None:
    """Everything in both may differ."""
    base, upper = layers
    (upper / "dir").mkdir()
    (upper / "dir" / "fresh").write_text("f")
    os.setxattr(upper / "dir", "user.overlay.opaque", b"y")
    found = overlay.changed_candidates(base, upper)
    assert {"dir/one", "dir/sub/two", "dir/fresh"} <= found


def test_unknown_marks_are_refused(layers: tuple[Path, Path]) -> None:
    """Nested overlays write others; guessing could lose files."""
    base, upper = layers
    (upper / "dir").mkdir()
    os.setxattr(upper / "dir", "user.overlay.opaque", b"x")
    with pytest.raises(SandboxError, match="unknown mark b'x'"):
        overlay.changed_candidates(base, upper)


@pytest.mark.parametrize("character", [":", ",", "\\", "\n"])
def test_paths_that_options_cannot_hold_are_refused(tmp_path: Path, character: str) -> None:
    """Before the kernel would misread them."""
    place = tmp_path / f"a{character}b"
    with pytest.raises(SandboxError, match="choose another one"):
        overlay.mount(tmp_path, place, place, tmp_path)


def test_layers_between_are_refused_by_their_names_too(tmp_path: Path) -> None:
    """They stand in the same option."""
    with pytest.raises(SandboxError, match="choose another one"):
        overlay.mount(tmp_path, tmp_path, tmp_path, tmp_path, between=[tmp_path / "a:b"])
