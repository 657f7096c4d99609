"""What a warm run declines without starting anything."""

import sys
from pathlib import Path

import pytest

from tightloop.sandbox.warm.declining import (
    collects_the_same,
    other_interpreter,
    own_variables,
    shadowing,
    unknown_argument,
    unsure_config,
)


@pytest.mark.parametrize(
    "args",
    [
        ["-q", "-x", "-vv", "-rA", "-k", "a and b", "-m", "slow", "tests/a.py::test_b[x]"],
        ["--tb=short", "--maxfail", "3", "-p", "no:cacheprovider", "-pno:randomly"],
    ],
)
def test_plain_arguments_are_known(args: list[str]) -> None:
    """Selections and formats."""
    assert unknown_argument(args) == ""


@pytest.mark.parametrize("argument", ["--cov", "-p", "-n4", "--pdb", "@file", "-c", "--rootdir=/"])
def test_others_are_not(argument: str) -> None:
    """Plugins, debuggers, other configurations."""
    assert argument in unknown_argument(["-q", argument])


def test_what_depends_on_earlier_runs_keeps_modules_from_being_resident() -> None:
    """The next run of ``--lf`` collects other files."""
    assert collects_the_same(["-q", "-x", "--tb=short"])
    assert not collects_the_same(["-q", "--lf"])
    assert not collects_the_same(["--stepwise"])


def test_the_interpreter_must_be_the_one_that_runs(tmp_path: Path) -> None:
    """Also behind the first line of a script."""
    script = tmp_path / "pytest"
    script.write_text(f"#!{sys.executable}\n")
    assert other_interpreter(sys.executable, True) == ""
    assert other_interpreter(str(script), False) == ""
    assert "another" in other_interpreter("/bin/sh", True)
    script.write_text("#!/usr/bin/env python\n")
    assert "plain" in other_interpreter(str(script), False)
    assert "no pytest" in other_interpreter(str(tmp_path / "gone"), False)


def test_variables_of_one_command_are_declined() -> None:
    """But for the mark that every command has."""
    assert own_variables({"TIGHTLOOP_COMMAND": "1"}) == ""
    assert own_variables({"TIGHTLOOP_COMMAND": "1", "DEBUG": "1"}) == "variable DEBUG"


def test_configured_plugins_are_declined(tmp_path: Path) -> None:
    """In any file between here and the workspace's top."""
    below = tmp_path / "below"
    below.mkdir()
    assert unsure_config(str(below), str(tmp_path)) == ""
    (tmp_path / "setup.cfg").write_text("[tool:pytest]\naddopts = --cov=pkg\n")
    assert "setup.cfg" in unsure_config(str(below), str(tmp_path))


def test_what_is_configured_for_other_tools_does_not_count(tmp_path: Path) -> None:
    """Files that pytest shares: only its own sections, wherever they stand."""
    place, others = str(tmp_path), "[testenv]\ncommands =\n    pytest -n auto --cov=pkg\n"
    (tmp_path / "tox.ini").write_text(f"[pytest]\naddopts = -q\n{others}")
    (tmp_path / "pyproject.toml").write_text('[tool.x]\nrun = ["pytest", "-n", "4"]\n')
    assert unsure_config(place, place) == ""
    (tmp_path / "tox.ini").write_text(f"{others}[pytest]  # here\naddopts =\n    -q\n    -n 4\n")
    assert "tox.ini" in unsure_config(place, place)
    (tmp_path / "tox.ini").unlink()
    text = '[tool.pytest.ini_options]\naddopts = [\n    "-q",\n    "-n", "4",\n]\n'
    (tmp_path / "pyproject.toml").write_text(text)
    assert "pyproject.toml" in unsure_config(place, place)


def test_a_file_that_hides_a_resident_module_is_declined(tmp_path: Path) -> None:
    """A package with code, a module, not a plain directory of that name."""
    names = frozenset(("json", "queue"))
    (tmp_path / "json").mkdir()
    assert shadowing(str(tmp_path), names) == ""
    (tmp_path / "json" / "__init__.py").touch()
    assert "json" in shadowing(str(tmp_path), names)
    (tmp_path / "json" / "__init__.py").unlink()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "queue.py").touch()
    assert "queue.py" in shadowing(str(tmp_path), names)
