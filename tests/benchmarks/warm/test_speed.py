"""What is edited before a measured run, and what the run says of itself."""

import shutil
from pathlib import Path

import pytest

from benchmarks.warm.projects import Project, copy
from benchmarks.warm.speed import Selection, level
from tests.benchmarks.warm.subjects import make_subject

PROJECT = Project("small", "src/small", ("tests/test_small.py",), "tests/conftest.py", "", ())


@pytest.fixture
def selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Selection:
    """Of an installed project with an empty environment, in a copy."""
    monkeypatch.setenv("TIGHTLOOP_PROJECTS", str(tmp_path))
    folder = tmp_path / "small"
    make_subject(folder)
    packages = folder / ".venv" / "lib" / "python3" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "small.pth").write_text(f"{folder}/src\n")
    (packages / "other.py").write_text("VALUE = 1\n")
    (folder / ".complete").touch()
    (folder / "src" / "small" / "__pycache__").mkdir()
    root = copy(PROJECT, tmp_path / "copies")
    return Selection(PROJECT, root, PROJECT.tests[0], "src/small/core.py", "Thing.method")


def test_a_copy_imports_from_itself(selection: Selection) -> None:
    """Its environment is equal but for the line that leads to the sources, and shares no file."""
    packages = selection.root / ".venv" / "lib" / "python3" / "site-packages"
    installed = PROJECT.folder / ".venv" / "lib" / "python3" / "site-packages"
    assert (packages / "small.pth").read_text() == f"{selection.root}/src\n"
    assert (installed / "small.pth").read_text() == f"{PROJECT.folder}/src\n"
    assert (packages / "other.py").read_text() == (installed / "other.py").read_text()
    assert (installed / "other.py").stat().st_nlink == 1
    assert not (selection.root / "src" / "small" / "__pycache__").exists()


def test_each_edit_is_another_one(selection: Selection) -> None:
    """Otherwise there would be nothing to do for a warm run."""
    assert selection.body(1) != selection.body(2)
    assert b"        edited_1 = 1\n        return self.size" in selection.body(1)[1]
    assert selection.test_file(1)[0] == "tests/test_small.py"
    assert selection.signature(7)[1].endswith(b"\nEDITED = 7\n")
    assert selection.nothing(1) == selection.nothing(2)


def test_a_project_that_is_not_installed_says_what_to_do(selection: Selection) -> None:
    shutil.rmtree(PROJECT.folder)
    with pytest.raises(FileNotFoundError, match="make projects"):
        copy(PROJECT, selection.root)


def test_a_run_tells_its_level() -> None:
    assert level("17 passed in 0.1s\ntightloop: warm (swap-l2) in 40 ms: swapped in\n") == "swap-l2"
    assert level("17 passed in 0.1s\ntightloop: cold in 1.2 s: no reason\n") == "cold"
