"""What a person gets to read, and what an answer would allow."""

import pytest

from tightloop.agent.approval.interface import Mode, Verdict
from tightloop.agent.approval.judge import Line, Situation
from tightloop.agent.approval.questions import (
    MAX_DETAILS,
    about_changes,
    about_command,
    about_tool,
    lasting_rules,
)
from tightloop.agent.approval.rules import Rules

ASK = Situation(Mode.ASK)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("pytest -q a.py", [("pytest -q a.py",), ("pytest *",)]),
        ("git commit -m 'a b'", [("git commit -m 'a b'",), ("git commit *",)]),
        ("python -m mypy x", [("python -m mypy x",), ("python -m mypy *",)]),
        ("cat x | tee y", [("tee y",)]),
        ("make a && make b", [("make a", "make b")]),
        ("rm x", [("rm x",)]),
        ("python x.py", [("python x.py",)]),
        ("./run x", [("./run x",)]),
        ("rm $x", []),
        ("pytest > f", []),
        ("python -c 1", []),
        ("[[ a ]]", []),
    ],
)
def test_what_lasts(line: str, offered: list[tuple[str, ...]]) -> None:
    """Never more than one program with its subcommand, and never for what can do anything."""
    assert offered == list(lasting_rules(Line(line), Rules(), ASK))


def test_a_command_with_many_lines_is_shown_whole() -> None:
    line = Line("python - <<'E'\nprint(1)\nE")
    request = about_command(line, "sub", "why", "item_3", {})
    assert request.title == "run: python - <<'E' ..."
    assert request.details == ("| python - <<'E'", "| print(1)", "| E", "in sub")
    assert [choice.label for choice in request.choices] == ["once", "always this line", "no"]


def test_nothing_can_draw_on_the_terminal() -> None:
    request = about_command(Line("echo '\x1b[2J\u202ex'"), ".", "\x1b[1mwhy", "", {})
    assert (request.title, request.reason) == ("run: echo '\ufffdx'", "why")


def test_a_tool() -> None:
    request = about_tool("mail_send", "mail send\n{...}", "why", "item_1")
    assert (request.title, request.details) == ("use: mail send", ("{...}",))
    assert [choice.decision.verdict for choice in request.choices] == [
        Verdict.ONCE,
        Verdict.ALWAYS,
        Verdict.DENY,
    ]


def test_many_paths_are_counted() -> None:
    request = about_changes([f"f{number}" for number in range(100)], [])
    assert request.title == "write 100 files into your checkout"
    assert len(request.details) == MAX_DETAILS + 1
    assert request.details[-1] == "... and 60 more lines"
