"""Projects whose background processes end with the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.testing.projects import Project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project of one test."""
    one = Project(tmp_path)
    yield one
    one.test("--stop")


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """Where a test can be made to wait."""
    return tmp_path / "project" / "gate"
