"""What Tab offers."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from tightloop.agent.terminal.editor import Editor
from tightloop.agent.terminal.keys import Key
from tightloop.cli.chat.commands import COMMANDS
from tightloop.cli.chat.completing import Completing, listed_paths


@pytest.fixture
def completing() -> Completing:
    completing = Completing(COMMANDS)
    completing.paths = ["src/app/main.py", "main_test.py", "docs/domain.md", "README"]
    return completing


def offered(completing: Completing, text: str) -> list[str]:
    return [one.text for one in completing(text, len(text))]


def test_commands(completing: Completing) -> None:
    assert offered(completing, "/re") == ["/redo", "/resume", "/review"]
    assert len(offered(completing, "/")) == len(COMMANDS)
    assert offered(completing, "/model x") == []
    assert offered(completing, "see /re") == []
    assert offered(completing, "/zzz") == []


def test_paths(completing: Completing) -> None:
    """Those that begin so first, then names that do, then the rest."""
    assert offered(completing, "look at @main") == [
        "@main_test.py",
        "@src/app/main.py",
        "@docs/domain.md",
    ]
    assert offered(completing, "@") == []
    assert offered(completing, "a@main") == []


def test_a_path_takes_the_place_of_what_was_typed(completing: Completing) -> None:
    editor = Editor(complete=completing)
    editor.press(Key("text", "fix @README"[:-2]))
    editor.press(Key("tab"))
    assert editor.text.rstrip() == "fix @README"


def test_a_command_is_completed_and_sent_with_enter(completing: Completing) -> None:
    editor = Editor(complete=completing)
    editor.press(Key("text", "/lat"))
    assert not editor.press(Key("enter"))
    assert editor.text == "/latency"


def test_files_that_git_does_not_ignore(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / "a b.py").write_text("")
    (tmp_path / "x.log").write_text("")
    assert asyncio.run(listed_paths(tmp_path)) == [".gitignore", "a b.py"]


async def test_none_where_git_cannot_say(tmp_path: Path) -> None:
    assert await listed_paths(tmp_path) == []
