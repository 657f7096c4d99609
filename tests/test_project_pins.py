"""What ``make projects`` installs is pinned, and says nothing about where it was looked up."""

import re
from pathlib import Path

import pytest

from benchmarks.warm.projects import PROJECTS
from scripts import install_projects

PINS = Path(__file__).resolve().parent.parent / "projects"


def test_every_source_is_pinned_by_version_and_content() -> None:
    """And it is one of those that the equality runs know, with its licence named."""
    found = install_projects.sources()
    assert sorted(source.name for source in found) == sorted(PROJECTS)
    for source in found:
        assert re.fullmatch(rf"{source.name}==[\d.]+ --hash=sha256:[0-9a-f]{{64}}", source.line)
    lines = (PINS / "sdists.txt").read_text("utf-8").splitlines()[1:]
    assert [line for line in lines if not re.search(r"  # (MIT|BSD-3-Clause)$", line)] == []


@pytest.mark.parametrize("name", [*PROJECTS, "tools"])
def test_requirements_are_locked_with_hashes(name: str) -> None:
    """The lock holds what the request asks for, and a hash for each package."""
    locked = (PINS / f"{name}.txt").read_text("utf-8")
    for line in (PINS / f"{name}.in").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            assert f"\n{line} \\\n" in f"\n{locked}"
    blocks = re.split(r"^(?=[a-z])", locked, flags=re.MULTILINE)[1:]
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert "--index-url" not in locked


def test_a_source_that_changes_is_installed_again() -> None:
    """The stamp of a folder goes by the pin."""
    one, other = install_projects.sources()[:2]
    assert one.digest() == one.digest()
    assert one.digest() != other.digest()
