"""A recipe on paper."""

import json
from pathlib import Path

import pytest

from tightloop.cli.connecting.interface import Target
from tightloop.cli.connecting.printing import as_json, as_text, as_written, command
from tightloop.cli.connecting.registry import CLIENTS, client_named

TARGET = Target("http://127.0.0.1:8099/v1", "m", "MY_KEY")


@pytest.mark.parametrize("name", CLIENTS)
def test_everything_to_paste_is_there_and_unchanged(name: str) -> None:
    """Each file whole and unindented under its place, each variable, the command, the other way."""
    client = client_named(name)
    recipe = client.recipe(TARGET)
    text = as_text(client, TARGET, recipe)
    for file in recipe.files:
        assert f". {file.place}: {file.why}\n" in text
        assert f"\n{file.text.rstrip()}\n---" in text
    for setting in recipe.settings:
        assert f"\n  {setting.in_shell()}   # {setting.why}\n" in text
    assert f"\n  {command(client, TARGET, recipe)}\n" in text
    assert f"tightloop connect {name} -- " in text
    assert client.install in text


def test_a_command_is_the_program_and_its_arguments() -> None:
    """Quoted for a shell."""
    commands = {}
    for name in ("codex", "mini", "openai"):
        client = client_named(name)
        commands[name] = command(client, TARGET, client.recipe(TARGET))
    assert commands == {
        "codex": "codex exec 'make the failing test pass'",
        "mini": "mini -m openai/m -t 'make the failing test pass'",
        "openai": "python hello.py",
    }


def test_what_was_written_and_how_to_use_it() -> None:
    """Files that were there are told from new ones."""
    text = as_written(Path("/my dir"), ["a", "environment.sh"], [Path("/my dir/a")], "codex")
    assert text == (
        "/my dir/a: written\n/my dir/environment.sh: was there already\n\n"
        "Then:\n\n  . '/my dir/environment.sh'\n  codex\n"
    )


def test_a_program_gets_one_object() -> None:
    """A key is named by its variable, never shown."""
    client = client_named("openai")
    recipe = client.recipe(TARGET)
    read = json.loads(as_json(client, TARGET, recipe, recipe.settings, [Path("/d/hello.py")]))
    assert (read["client"], read["model"], read["written"]) == ("openai", "m", ["/d/hello.py"])
    assert read["environment"][:2] == [
        {"name": "OPENAI_BASE_URL", "why": "the server", "value": TARGET.url},
        {
            "name": "OPENAI_API_KEY",
            "why": "the SDKs do not start without one",
            "from": "MY_KEY",
            "otherwise": "unused",
        },
    ]
    assert read["files"][0]["text"] == recipe.files[0].text
