"""Which python runs a project's tests, and where it lies."""

import sys
from pathlib import Path

import pytest

from tests.sandbox.conftest import plain_environment
from tightloop.cli.testing.interpreter import find_interpreter
from tightloop.sandbox.interface import SandboxError


def test_one_in_the_project_is_not_started_out_here(tmp_path: Path) -> None:
    """It is the repository's word: a script there must not run outside of a sandbox."""
    program = tmp_path / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    found = find_interpreter(str(program), tmp_path, {})
    assert (found.program, found.readable) == (program, ())
    assert not (tmp_path / "ran").exists()


def test_one_of_the_path_is_asked_what_it_is(tmp_path: Path) -> None:
    """It may be a script that chooses among several."""
    chooser = tmp_path / "bin" / "python"
    chooser.parent.mkdir()
    chooser.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    chooser.chmod(0o755)
    (tmp_path / "project").mkdir()
    found = find_interpreter("", tmp_path / "project", {"PATH": str(chooser.parent)})
    assert found.program == Path(sys.executable)
    assert Path(sys.prefix) in found.readable


def test_without_any_the_text_says_what_to_do(tmp_path: Path) -> None:
    """Also for one that does not run."""
    with pytest.raises(SandboxError, match=r"make a .venv in the project"):
        find_interpreter("", tmp_path, {"PATH": str(tmp_path)})
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(SandboxError, match="does not run"):
        find_interpreter("", tmp_path, {"PATH": str(tmp_path)})


def test_an_activated_one_brings_its_places(tmp_path: Path) -> None:
    """The environment and what it was made from; never a place that holds a whole home."""
    (tmp_path / "env").mkdir()
    plain_environment(tmp_path / "env")
    program = tmp_path / "env" / ".venv" / "bin" / "python"
    found = find_interpreter(str(program), tmp_path / "project", {})
    assert tmp_path / "env" / ".venv" in found.readable
    assert not any(Path.home().is_relative_to(place) for place in found.readable)
    before = found.stamp
    program.unlink()
    program.symlink_to("/bin/sh")
    assert found.stamp != before
