"""Mounts of this process; each test does it in a child with a namespace of its own.

As root, or else in a user namespace as the agent itself has one.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tightloop.sandbox import mounts, own_namespace


def in_namespace(work: Callable[[], object]) -> None:
    """The work is done by a child that may mount; what it mounts goes with it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert own_namespace.enter(Path(os.environ["PYTEST_MOUNTS"])) == ""
            work()
            status = 0
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two directories, one with a file in it."""
    monkeypatch.setenv("PYTEST_MOUNTS", str(tmp_path / "state"))
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "source" / "file").write_text("content")
    return tmp_path


def test_a_directory_shows_at_a_second_place_and_can_be_closed_there(place: Path) -> None:
    """The place it comes from stays writable; what is unmounted shows nothing."""

    def work() -> None:
        mounts.bind(place / "source", place / "target")
        mounts.set_read_only(place / "target")
        with pytest.raises(OSError, match="Read-only file system"):
            (place / "target" / "file").write_text("changed")
        (place / "source" / "file").write_text("by its own path")
        assert (place / "target" / "file").read_text() == "by its own path"
        assert mounts.unmount(place / "target")
        assert not mounts.unmount(place / "target")
        assert os.listdir(place / "target") == []

    in_namespace(work)


def test_a_shared_mount_shows_what_is_mounted_later_in_copies_of_it(place: Path) -> None:
    """A private one does not."""

    def work() -> None:
        for name in ("shared", "private"):
            inner, copy = place / name, place / f"copy of {name}"
            (inner / "slot").mkdir(parents=True)
            copy.mkdir()
            mounts.bind(inner, inner)
            mounts.set_private(inner)
            if name == "shared":
                mounts.set_shared(inner)
            mounts.bind(inner, copy)
            mounts.bind(place / "source", inner / "slot")
            seen = ["file"] if name == "shared" else []
            assert os.listdir(copy / "slot") == seen

    in_namespace(work)


def test_an_error_says_what_was_tried_and_where(place: Path) -> None:
    """The path is the error's own."""

    def work() -> None:
        with pytest.raises(FileNotFoundError, match="showing it elsewhere") as caught:
            mounts.bind(place / "source", place / "missing")
        assert caught.value.filename == str(place / "missing")

    in_namespace(work)


def test_nothing_of_it_is_seen_outside(place: Path) -> None:
    """Also by root the mounts of a process that entered its namespace stay with it."""
    in_namespace(lambda: mounts.bind(place / "source", place / "target"))
    assert str(place) not in Path("/proc/self/mountinfo").read_text()
    assert os.listdir(place / "target") == []
