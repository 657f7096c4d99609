"""What counts as a command."""

import pytest

from tightloop.cli.chat.commands import COMMANDS, Typed, parse


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("/diff", Typed("diff", "")),
        ("  /diff  ", Typed("diff", "")),
        ("/model  remote:x@https://h/v1 ", Typed("model", "remote:x@https://h/v1")),
        ("/review branch\nmain", Typed("review", "branch\nmain")),
        ("/nonsense", Typed("nonsense", "")),
    ],
)
def test_commands(text: str, typed: Typed) -> None:
    assert parse(text) == typed


@pytest.mark.parametrize(
    "text", ["", "diff", "/", "/usr/bin/env is missing", "/etc", "look at /diff", "/Diff", "//x"]
)
def test_messages(text: str) -> None:
    """A path is a message; a path of one name is not told from a command, and a space before it helps
    nobody, so it is refused with the names that there are."""
    expected = Typed("etc", "") if text == "/etc" else None
    assert parse(text) == expected


def test_names_are_unique_and_sorted() -> None:
    names = [command.name for command in COMMANDS]
    assert names == sorted(set(names))


def test_usage() -> None:
    by_name = {command.name: command.usage for command in COMMANDS}
    assert by_name["model"] == "/model [NAME]"
    assert by_name["quit"] == "/quit"
