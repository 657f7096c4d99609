"""Which checks there are, and what is wrong with a table that says so badly."""

from pathlib import Path

import pytest

from tightloop.harness.backend import UsageError
from tightloop.harness.checks.settings import Check, read_checks
from tightloop.sandbox.policies import PolicyError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The user's configuration, empty."""
    path = tmp_path / "config.toml"
    path.write_text("")
    return path


def test_those_of_the_repository_and_of_the_user(tmp_path: Path, config: Path) -> None:
    """A table of the user's replaces the repository's, or switches it off."""
    assert read_checks(tmp_path, config) == []
    (tmp_path / ".tightloop.toml").write_text(
        '[checks.lint]\ncommand = "ruff check ."\npaths = ["*.py"]\n'
        '[checks.types]\ncommand = "mypy ."\n[checks.slow]\ncommand = "make all"\n'
        '[test]\ncommand = "pytest"\n'
    )
    config.write_text(
        '[checks.types]\ncommand = "dmypy run"\nafter = "turn"\ntimeout_s = 5\n'
        "[checks.slow]\nenabled = false\n"
        '[checks.mine]\ncommand = "true"\n'
    )
    assert read_checks(tmp_path, config) == [
        Check(name="lint", command="ruff check .", paths=("*.py",)),
        Check(name="types", command="dmypy run", after="turn", timeout_s=5),
        Check(name="mine", command="true"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("checks = 1", r"\[checks\] must hold tables"),
        ("[checks]\nlint = 1", r"\[checks\.lint\]: Expected `object`.*known keys: command, paths"),
        ("[checks.lint]\ncmd = 'x'", "unknown field `cmd`"),
        ("[checks.lint]", "command must be a command line, got ''"),
        ("[checks.lint]\ncommand = 'x'\nafter = 'save'", "'patch' or 'turn', got 'save'"),
        ("[checks.lint]\ncommand = 'x'\ntimeout_s = 0", "timeout_s must be above 0"),
        ("[checks.lint]\ncommand = 'x'\nname = 'y'", "name is not a key"),
        ("[checks.'a b']\ncommand = 'x'", "short word, got 'a b'"),
        ("[checks", "cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, config: Path, text: str, said: str) -> None:
    (tmp_path / ".tightloop.toml").write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        read_checks(tmp_path, config)
    assert ".tightloop.toml" in str(caught.value)


def test_the_users_file_is_named_too(tmp_path: Path, config: Path) -> None:
    config.write_text("[checks.lint]\n")
    with pytest.raises(UsageError, match=r"config\.toml: \[checks\.lint\]: command must be"):
        read_checks(tmp_path, config)
    with pytest.raises(PolicyError):
        read_checks(tmp_path, tmp_path / "missing.toml")


def test_not_too_many(tmp_path: Path, config: Path) -> None:
    tables = (f"[checks.c{number}]\ncommand = 'x'\n" for number in range(17))
    (tmp_path / ".tightloop.toml").write_text("".join(tables))
    with pytest.raises(UsageError, match="17 checks, at most 16"):
        read_checks(tmp_path, config)


def test_what_a_change_is_about() -> None:
    """Patterns without a slash are about the last part; no pattern is about everything."""
    check = Check(command="x", paths=("*.py", "docs/*.md", "Makefile"))
    for path in ("a.py", "src/deep/a.py", "docs/x/y.md", "sub/Makefile"):
        assert check.is_about(path)
    for path in ("a.pyi", "README.md", "makefile"):
        assert not check.is_about(path)
    assert Check(command="x").is_about("anything")
