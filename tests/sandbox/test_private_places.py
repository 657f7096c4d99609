"""Private directories, and what is left of them."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from tests.sandbox.ordinary import place, run
from tightloop.sandbox.private_places import PrivatePlace, remove_abandoned

__all__ = ["place"]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary directory, for this test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_there_until_it_is_closed(temporary: Path) -> None:
    """Empty, for its owner only; another one does not touch it."""
    one, two = PrivatePlace(), PrivatePlace()
    assert os.listdir(one.path) == []
    assert one.path.parent.stat().st_mode & 0o777 == 0o700
    (one.path / "file").write_text("x")
    assert remove_abandoned() == []
    one.close()
    one.close()
    assert list(temporary.iterdir()) == [two.path.parent]
    two.close()
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(temporary: Path) -> None:
    """With all it holds; directories of others and without a lock stay."""
    pid = os.fork()
    if pid == 0:
        try:
            (PrivatePlace().path / "file").write_text("x")
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    (temporary / "tightloop-private-without").mkdir()
    (temporary / "other").mkdir()
    (temporary / "other" / "lock").touch()
    (temporary / "tightloop-private-link").symlink_to("other")
    [left] = [path for path in temporary.iterdir() if (path / "tmp").exists()]
    place = PrivatePlace()
    assert not left.exists()
    expected = {"tightloop-private-without", "other", "tightloop-private-link"}
    expected.add(place.path.parent.name)
    assert {path.name for path in temporary.iterdir()} == expected
    place.close()


def test_what_commands_have_closed_goes_too(place: Path) -> None:
    """An ordinary user may not look into such a directory either, before it is opened again."""
    script = """
import tempfile
from tightloop.sandbox.private_places import PrivatePlace
tempfile.tempdir = os.getcwd()
private = PrivatePlace()
(private.path / "a" / "b").mkdir(parents=True)
(private.path / "a").chmod(0)
private.close()
print([name for name in os.listdir() if name.startswith("tightloop")])
"""
    done = run(place, script)
    assert done.stdout == "[]\n", done.stderr


def test_directories_that_only_look_alike_stay(temporary: Path) -> None:
    """Such as one where somebody keeps the state of workspaces."""
    (temporary / "tightloop-state").mkdir()
    (temporary / "tightloop-state" / "lock").touch()
    assert remove_abandoned() == []
