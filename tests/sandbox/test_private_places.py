"""Private directories, and what is left of them."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from tightloop.sandbox.private_places import PrivatePlace, remove_abandoned


@pytest.fixture(autouse=True)
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
    (temporary / "tightloop-without").mkdir()
    (temporary / "other").mkdir()
    (temporary / "other" / "lock").touch()
    (temporary / "tightloop-link").symlink_to("other")
    [left] = [path for path in temporary.iterdir() if (path / "tmp").exists()]
    place = PrivatePlace()
    assert not left.exists()
    expected = {place.path.parent.name, "tightloop-without", "other", "tightloop-link"}
    assert {path.name for path in temporary.iterdir()} == expected
    place.close()
