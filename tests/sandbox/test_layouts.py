"""Who uses what, and how it goes."""

import os
from pathlib import Path

from tightloop.sandbox import layouts, locks


def test_the_living_are_in_use_and_the_dead_are_thrown_away(tmp_path: Path) -> None:
    """Living means: somebody holds the lock."""
    base = tmp_path / "bases" / "b"
    layout, fd = layouts.lay_out(tmp_path, "name", [base])
    assert layouts.in_use(tmp_path) == {base}
    assert layout.view == layout.root / "view" / "name"
    os.close(fd)
    assert layouts.in_use(tmp_path) == set()
    assert os.listdir(tmp_path / "workspaces") == []
    assert len(os.listdir(tmp_path / "trash")) == 1
    layouts.empty_trash(tmp_path)
    assert os.listdir(tmp_path / "trash") == []


def test_half_made_ones_count_as_dead(tmp_path: Path) -> None:
    """Without a lock or without a view."""
    (tmp_path / "workspaces" / "x").mkdir(parents=True)
    assert layouts.in_use(tmp_path) == set()
    assert os.listdir(tmp_path / "workspaces") == []


def test_throwing_away_twice_is_no_error(tmp_path: Path) -> None:
    assert layouts.discard_directory(tmp_path / "gone", tmp_path) is None
    layouts.empty_trash(tmp_path / "nowhere")


def test_one_at_a_time_empties_the_trash(tmp_path: Path) -> None:
    """Whoever need not wait leaves it to the one that is at it."""
    (tmp_path / "trash" / "x" / "deep").mkdir(parents=True)
    fd = locks.acquire(tmp_path / "trash.lock")
    assert fd is not None
    layouts.empty_trash(tmp_path, wait=False)
    assert os.listdir(tmp_path / "trash") == ["x"]
    os.close(fd)
    layouts.empty_trash(tmp_path, wait=False)
    assert os.listdir(tmp_path / "trash") == []
