"""Finding a client and taking its place. A real launch: tests/cli/test_connect.py."""

import signal
from pathlib import Path

import pytest

from tightloop.cli.connecting.interface import ConnectError, Recipe, Setting, Target, key_setting
from tightloop.cli.connecting.launching import become, environment_for, find_program
from tightloop.cli.connecting.registry import client_named

CODEX = client_named("codex")


def program(directory: Path, name: str) -> Path:
    path = directory / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_client_is_found_on_the_path_or_where_it_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An SDK's program is the first word."""
    path = program(tmp_path, "codex")
    elsewhere = program(tmp_path, "codex-dev")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program(CODEX, None, []) == str(path)
    assert find_program(CODEX, elsewhere, []) == str(elsewhere)
    assert find_program(client_named("openai"), None, ["codex-dev", "x"]) == str(elsewhere)


def test_a_missing_client_comes_with_its_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a wrong path is named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConnectError, match="install it with 'npm install -g @openai/codex'"):
        find_program(CODEX, None, [])
    with pytest.raises(ConnectError, match="--client: /no/codex is not a program"):
        find_program(CODEX, Path("/no/codex"), [])
    with pytest.raises(ConnectError, match="nosuch is not on PATH"):
        find_program(client_named("openai"), None, ["nosuch"])


def test_the_clients_variables() -> None:
    """Those there are, changed by the settings, without those in the way."""
    target = Target("http://h/v1", "m", "MY_KEY")
    settings = (Setting("URL", "u", "w"), key_setting("TOKEN", target, "w"))
    recipe = Recipe((), settings, ("x",), unset=("OTHER_KEY",))
    before = {"URL": "old", "MY_KEY": "k", "OTHER_KEY": "secret", "HOME": "/h"}
    after = {"URL": "u", "TOKEN": "k", "MY_KEY": "k", "HOME": "/h"}
    assert environment_for(settings, recipe, before) == after


def test_a_file_that_is_no_program_is_named(tmp_path: Path) -> None:
    """The kernel's reason, in one line."""
    path = tmp_path / "codex"
    path.write_text("\x7fELF but not really")
    path.chmod(0o755)
    with pytest.raises(ConnectError, match=r"cannot start .*codex"):
        become(str(path), [], {})
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN  # a closed pipe is an error again
