"""Text of a repository: read as far as it goes, and never from outside."""

import os
from pathlib import Path

from tightloop.agent.confined_text import read_inside


def test_what_is_read_and_what_is_not(tmp_path: Path) -> None:
    """Links may lead on inside of the root; whatever is no text file below it is empty."""
    root = (tmp_path / "repo").resolve()
    (root / "docs").mkdir(parents=True)
    (root / "a.md").write_bytes("grün\xff".encode("latin-1") + b"!")
    (root / "near.md").symlink_to("a.md")
    (tmp_path / "secret").write_text("token")
    (root / "far.md").symlink_to(tmp_path / "secret")
    (root / "loop.md").symlink_to("loop.md")
    os.mkfifo(root / "pipe.md")
    assert read_inside(root / "a.md", root, 100) == "grn!"
    assert read_inside(root / "near.md", root, 2) == "gr"
    for name in ("far.md", "loop.md", "pipe.md", "docs", "none.md", "a\0b"):
        assert read_inside(root / name, root, 100) == ""
    assert read_inside(root / "far.md", None, 100) == "token"
    assert read_inside(root / "a.md", root, -1) == ""
