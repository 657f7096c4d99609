"""What the probe leaves behind."""

import os
import tempfile
from pathlib import Path

import pytest

from tightloop.sandbox.warm import probe


def test_directories_of_killed_owners_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock tells whose owner lives; what has none is not ours."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    living, fd = probe.make_directory()
    dead, other = tmp_path / "tightloop-probe-dead", tmp_path / "tightloop-probe-other"
    for place in (dead, other):
        place.mkdir()
        (place / "test_probe.py").touch()
    (dead / "lock").touch()
    probe.remove_abandoned()
    assert sorted(tmp_path.iterdir()) == sorted([Path(living), other])
    os.close(fd)
    probe.remove_abandoned()
    assert list(tmp_path.iterdir()) == [other]
