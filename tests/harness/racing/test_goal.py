"""What counts as passing, and who has said so."""

from pathlib import Path

import pytest

from tightloop.harness.backend import UsageError
from tightloop.harness.racing.goal import (
    find_goal,
    is_pass,
    is_same_command,
    line_of,
    num_failed,
)
from tightloop.sandbox.interface import Command, CommandResult

CONFIGURED = '[test]\ncommand = "make test"\n'


@pytest.mark.parametrize(
    ("config", "task", "rules", "shown", "source"),
    [
        (CONFIGURED, "run `pytest -q`", ["`tox`"], "make test", "configured"),
        (None, "run `pytest -q` or `pytest -x`", ["`tox`"], "pytest -x", "named in the task"),
        (None, "mend it", ["`tox`", "`nox` and `ls`"], "nox", "named in AGENTS.md"),
        (None, "mend `x`", ["no command"], None, ""),
    ],
)
def test_who_names_it(
    tmp_path: Path, config: str | None, task: str, rules: list[str], shown: str | None, source: str
) -> None:
    """The configuration before the task, the task before the rules; in each the last one."""
    if config is not None:
        (tmp_path / ".tightloop.toml").write_text(config)
    goal = find_goal(tmp_path, task, rules)
    assert (goal.shown, goal.source) == (shown, source)
    assert goal.is_it(Command(script=shown or "ls", timeout_s=3.0)) is (shown is not None)


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".tightloop.toml").write_text("[test")
    with pytest.raises(UsageError, match="cannot be read"):
        find_goal(tmp_path, "x", [])


def test_the_same_command() -> None:
    """Words and directory count, limits do not."""
    one = Command(script="pytest -q", timeout_s=1.0)
    assert is_same_command(one, Command(script=" pytest -q\n", cwd="./"))
    assert not is_same_command(one, Command(script="pytest -q", cwd="src"))
    assert not is_same_command(one, Command(script="pytest -q | tail"))
    assert not is_same_command(one, Command(argv=["pytest", "-q"]))
    assert line_of(Command(argv=["pytest", "-q"])) == "pytest -q"


def test_a_pass_ends_by_itself_with_zero() -> None:
    assert is_pass(CommandResult(0, "", 0, 0))
    assert not is_pass(CommandResult(0, "", 0, 0, timed_out=True))
    assert not is_pass(CommandResult(5, "", 0, 0))


@pytest.mark.parametrize(
    ("output", "number"),
    [
        ("F..\n=== 1 failed, 2 passed, 3 errors in 0.1s ===\n", 4),
        ("12 failed\nlater\n", 12),
        ("Tests: 2 failures\n", 2),
        ("ok\n", None),
    ],
)
def test_how_many_failed(output: str, number: int | None) -> None:
    assert num_failed(output) == number
