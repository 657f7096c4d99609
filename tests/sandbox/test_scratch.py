"""Bringing private places back to how they were."""

import ctypes
import os
from pathlib import Path

import pytest

from tightloop.sandbox.scratch import Scratch

_IPC_PRIVATE = 0
_IPC_RMID = 0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a file and a link in it."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("content")
    (tmp_path / "link").symlink_to("kept")
    return tmp_path


def test_what_was_made_since_is_gone_and_the_rest_is_there(place: Path) -> None:
    """Directories that a command closed, too; missing places are no error."""
    scratch = Scratch([str(place), str(place / "missing")])
    (place / "new" / "deep").mkdir(parents=True)
    (place / "new" / "deep" / "file").write_text("x")
    (place / "kept" / "more").symlink_to("/")
    (place / "new" / "deep").chmod(0)
    assert scratch.clear() == ""
    assert sorted(os.listdir(place)) == ["kept", "link"]
    assert os.listdir(place / "kept") == ["file"]
    assert os.path.exists("/etc")
    assert scratch.clear() == ""


@pytest.mark.parametrize("change", ["content", "mode", "link", "missing"])
def test_a_change_of_what_was_there_is_said(place: Path, change: str) -> None:
    """Such a place is not as it was, whatever is removed."""
    scratch = Scratch([str(place)])
    if change == "content":
        (place / "kept" / "file").write_text("CONTENT")
    elif change == "mode":
        (place / "kept").chmod(0o711)
    elif change == "link":
        (place / "link").unlink()
        (place / "link").symlink_to("elsewhere")
    else:
        (place / "kept" / "file").unlink()
    assert f"{place}/" in scratch.clear()


def test_only_queues_that_a_command_made_are_said(place: Path) -> None:
    """Semaphores of before stay as they are, those since are named."""
    libc = ctypes.CDLL(None)
    made = [libc.semget(_IPC_PRIVATE, 1, 0o600)]
    try:
        scratch = Scratch([str(place)])
        assert scratch.clear() == ""
        made.append(libc.semget(_IPC_PRIVATE, 1, 0o600))
        assert f"{made[1]} (sem)" in scratch.clear()
    finally:
        for number in made:
            libc.semctl(number, 0, _IPC_RMID)
    assert scratch.clear() == ""
