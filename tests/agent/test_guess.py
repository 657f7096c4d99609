"""Which test command is expected next."""

from pathlib import Path

import pytest

from tightloop.agent import guess
from tightloop.agent.guess import TestCommands, commands_in, naming_files
from tightloop.agent.tools.exec_command import DEFAULT_TIMEOUT_S
from tightloop.sandbox.interface import Command


def test_the_last_command_counts_then_the_configured_then_the_named(tmp_path: Path) -> None:
    commands = TestCommands(tmp_path)
    assert commands.guess(["m.py"]) is None
    commands.read("run `pytest -q` or `python -m pytest -x`, see `ls`")
    expected = Command(script="python -m pytest -x", timeout_s=DEFAULT_TIMEOUT_S)
    assert commands.guess(["m.py"]) == expected
    commands = TestCommands(tmp_path, "make test")
    commands.read("run `pytest -q`")
    assert commands.guess([]) == Command(script="make test", timeout_s=DEFAULT_TIMEOUT_S)
    last = Command(argv=["pytest", "a.py"], timeout_s=7.0)
    commands.note(last)
    assert commands.guess([]) == last


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Run `pytest -q`.", ["pytest -q"]),
        ("```sh\n$ make test\nls\n```\nor `tox`", ["make test", "tox"]),
        ("pytest without quotes", []),
        ("`pytest\n-q`", []),
        ("`cat pytest.ini`", []),
    ],
)
def test_commands_between_back_quotes(text: str, found: list[str]) -> None:
    assert commands_in(text) == found


def test_tests_that_import_what_changed(tmp_path: Path) -> None:
    """By the words of import statements; changed test files themselves first of all."""
    files = {
        "src/pkg/core.py": "",
        "tests/test_core.py": "from pkg import core\n",
        "tests/test_other.py": "import other  # core\n",
        "tests/deep/core_test.py": "import pkg.core as c\n",
        "tests/.hidden/test_x.py": "import core\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    both = ["tests/deep/core_test.py", "tests/test_core.py"]
    assert naming_files(tmp_path, ["src/pkg/core.py"]) == both
    assert naming_files(tmp_path, ["tests/test_other.py"]) == ["tests/test_other.py"]
    assert naming_files(tmp_path, ["README.md"]) == []
    guessed = TestCommands(tmp_path).guess(["src/pkg/core.py"])
    assert guessed is not None
    assert guessed.script == f"python -m pytest -q {' '.join(both)}"


def test_too_many_tests_are_no_guess(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"test_{number}.py").write_text("import m\n")
    assert naming_files(tmp_path, ["m.py"]) == []


def test_what_is_no_ordinary_file_is_left_alone(tmp_path: Path) -> None:
    """Links lead anywhere, and a shell would read more into odd names."""
    (tmp_path / "test_link.py").symlink_to("/etc/passwd")
    (tmp_path / "test_dir.py").mkdir()
    (tmp_path / "test_a b.py").write_text("import m\n")
    assert naming_files(tmp_path, ["m.py"]) == []


def test_a_file_of_blank_lines_takes_no_time(tmp_path: Path) -> None:
    """Each line is looked at once, not with all that follow."""
    (tmp_path / "test_blank.py").write_text("\n" * 190_000)
    (tmp_path / "test_m.py").write_text("\n\n    import m\n")
    assert naming_files(tmp_path, ["m.py"]) == ["test_m.py"]


def test_a_huge_tree_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else waits meanwhile."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "test_m.py").write_text("import m\n")
    assert naming_files(tmp_path, ["m.py"]) == ["sub/test_m.py"]
    monkeypatch.setattr(guess, "_MAX_ENTRIES", 1)
    assert naming_files(tmp_path, ["m.py"]) == []
