"""What commands may know of the user's variables."""

import sys
from pathlib import Path

import pytest

from tightloop.sandbox.environment import home_directory, snapshot


def test_only_listed_variables_pass(tmp_path: Path) -> None:
    """Language, terminal and search path; never tokens or what changes how programs start."""
    source = {
        "PATH": "/opt/x:/bin:/opt/x",
        "LC_ALL": "C",
        "TERM": "xterm",
        "OPENAI_API_KEY": "x",
        "PYTHONPATH": "x",
        "BASH_FUNC_ls%%": "x",
        "GIT_DIR": "x",
    }
    kept = snapshot(source, tmp_path)
    assert kept == {
        "PATH": f"{Path(sys.executable).parent}:/opt/x:/bin",
        "LC_ALL": "C",
        "LANG": "C.UTF-8",
        "TERM": "xterm",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def test_the_projects_own_environment_comes_first(tmp_path: Path) -> None:
    """So that ``python`` is the one the project is installed in."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").write_text("")
    assert snapshot({}, tmp_path)["PATH"].startswith(f"{tmp_path}/.venv/bin:")


def test_a_useless_home_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Containers may say ``/``; hiding that would hide everything."""
    monkeypatch.setenv("HOME", "/")
    assert home_directory() is None
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    assert home_directory() is None
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_directory() == tmp_path
