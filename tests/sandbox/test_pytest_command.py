"""What counts as a plain pytest command."""

import os
from pathlib import Path

import pytest

from tightloop.sandbox.interface import Command, Policy
from tightloop.sandbox.pytest_command import warm_request, zygote_argv


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A search path with a python and a pytest."""
    for name in ("python", "pytest"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    return {"PATH": os.fspath(tmp_path)}


@pytest.mark.parametrize(
    ("script", "args"),
    [
        ("python -m pytest", []),
        ("  python -m pytest -q tests/a.py::test_b\n", ["-q", "tests/a.py::test_b"]),
        ("pytest -k 'a and (b or not c)'", ["-k", "a and (b or not c)"]),
        ('pytest "a b.py" --tb=short', ["a b.py", "--tb=short"]),
        ("pytest 'test_a.py::test_b[x]'", ["test_a.py::test_b[x]"]),
    ],
)
def test_plain_words_are_understood(
    script: str, args: list[str], environment: dict[str, str]
) -> None:
    """The words are exactly those that a shell would pass."""
    request = warm_request(Command(script=script), "/w", environment)
    assert request is not None
    assert request["args"] == args
    assert request["is_script"]


@pytest.mark.parametrize(
    "script",
    [
        "",
        "pytest; rm x",
        "pytest && true",
        "pytest > out",
        "pytest $ARGS",
        'pytest "$ARGS"',
        "pytest `x`",
        "pytest *.py",
        "pytest test_a.py::test_b[x]",
        "pytest {a,b}",
        "pytest ~/x",
        "pytest # comment",
        "pytest a\\ b",
        "pytest 'unclosed",
        "pytest\ntrue",
        "X=1 pytest",
        "python -m unittest",
        "python -X dev -m pytest",
        "python test.py",
        "(pytest)",
        "time pytest",
    ],
)
def test_everything_else_is_left_to_the_shell(script: str, environment: dict[str, str]) -> None:
    """Operators, expansions, globs, assignments, other programs."""
    assert warm_request(Command(script=script), "/w", environment) is None


def test_argv_needs_no_shell_rules(environment: dict[str, str]) -> None:
    """What would be a glob for a shell is just a character here."""
    request = warm_request(Command(argv=["pytest", "test_a.py::t[x]"]), "/w", environment)
    assert request is not None
    assert request["args"] == ["test_a.py::t[x]"]
    assert not request["is_script"]


def test_without_python_there_is_no_zygote(tmp_path: Path) -> None:
    """And no warm request either."""
    empty = {"PATH": os.fspath(tmp_path)}  # the fixture is not asked for
    assert zygote_argv(empty, Policy(tmp_path)) is None
    assert warm_request(Command(script="pytest"), "/w", empty) is None
