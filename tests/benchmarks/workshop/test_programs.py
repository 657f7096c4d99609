import shutil
from pathlib import Path

import pytest

from benchmarks.lab.processes import NotStarted
from benchmarks.workshop.programs import own_version, spawn, spawn_at_once, versions
from tightloop import __version__


async def test_output_is_returned_and_a_failure_is_no_measurement(tmp_path: Path) -> None:
    assert await spawn(["pwd"], tmp_path) == f"{tmp_path}\n".encode()
    with pytest.raises(NotStarted, match=r"sh ended with 3: gone"):
        await spawn(["sh", "-c", "echo gone; exit 3"], tmp_path)


def test_a_program_is_started_and_waited_for() -> None:
    spawn_at_once(str(shutil.which("true")))
    with pytest.raises(FileNotFoundError):
        spawn_at_once("/no/such/program")


def test_versions_are_numbers_and_only_of_what_is_there() -> None:
    found = versions("git", "no-such-program")
    assert list(found) == ["git"]
    assert found["git"][0].isdigit()


def test_our_version_names_the_commit() -> None:
    """Where there is one: a checkout without git has none."""
    assert own_version().startswith(__version__)
