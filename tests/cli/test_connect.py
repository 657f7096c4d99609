"""``tightloop connect``: what it prints, writes and runs."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.connecting.serving import scripted_server
from tightloop.cli import connect
from tightloop.cli.connecting.registry import CLIENTS
from tightloop.cli.main import main

FAKE_CLIENT = """\
#!/bin/sh
printf '%s|' "$@" "$CODEX_HOME" "$TIGHTLOOP_API_KEY"; cat
echo on-stderr >&2
exit 7
"""


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    connect.configure(parser)
    return parser.parse_args(words)


def test_the_default_is_the_default_of_serve() -> None:
    """Two commands without options meet."""
    assert arguments("codex").url == "http://127.0.0.1:8099/v1"


@pytest.mark.parametrize("name", CLIENTS)
def test_with_a_model_nobody_is_asked(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The configuration can be made before the server runs, on another machine too."""
    assert main(["connect", name, "--model", "m", "--url", "http://127.0.0.1:1"]) == 0
    output = capsys.readouterr()
    assert "with m at http://127.0.0.1:1/v1" in output.out
    assert output.err == ""


def test_without_a_model_the_server_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    """Its first one, with its window."""
    with scripted_server() as url:
        assert main(["connect", "opencode", "--url", url, "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert (read["model"], read["context_window"]) == ("scripted", 1 << 20)


def test_without_a_server_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, nothing on standard output."""
    assert main(["connect", "codex", "--url", "http://127.0.0.1:1"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("tightloop connect: no server answers at http://127.0.0.1:1/v1")
    assert output.err.count("\n") == 1


def test_writing_makes_a_directory_that_a_shell_can_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variables lead the client to the files; a second time nothing is written."""
    words = ["connect", "codex", "--model", "m", "--write", str(tmp_path / "d"), "--json"]
    assert main(words) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert written == [str(tmp_path / "d" / name) for name in ("config.toml", "environment.sh")]
    script = f'. {tmp_path}/d/environment.sh; echo "$CODEX_HOME $TIGHTLOOP_API_KEY"'
    done = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, env={}, check=True
    )
    assert done.stdout == f"{tmp_path}/d unused\n"
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["written"] == []


def test_a_users_file_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, and the file is as it was."""
    (tmp_path / "config.toml").write_text("mine")
    assert main(["connect", "codex", "--model", "m", "--write", str(tmp_path)]) == 2
    assert "exists and is different" in capsys.readouterr().err
    assert (tmp_path / "config.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["codex", "--json", "--", "exec"], "--json and words after '--'"),
        (["codex", "--write", "/d", "--", "exec"], "--write and words after '--'"),
        (["openai", "--"], "name the program after '--'"),
        (["codex", "--client", "/no/codex", "--"], "/no/codex is not a program"),
    ],
)
def test_a_run_that_cannot_start_says_why(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the server is asked."""
    assert main(["connect", *words]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--api-key-env", "A; echo hi"], "--api-key-env: not the name of a variable"),
        (["--api-key-env", "sk-s3cret"], "--api-key-env: not the name of a variable"),
        (["--model", "bad\udcff"], "--model: 'bad\\udcff' is not UTF-8"),
        (["--url", "http://u:s3cret@h/v1"], "--url: leave the name and password out"),
        (["--otel", "http://collector"], "--otel: only codex"),
    ],
)
def test_odd_options_are_refused_and_no_secret_is_shown(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever they would have become in a shell or a file."""
    assert main(["connect", "claude", "--model", "m", *words]) == 2
    output = capsys.readouterr()
    assert text in output.err
    assert "s3cret" not in output.out + output.err


def test_the_command_to_try_goes_to_the_same_server(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option that was given and matters to a run is in it."""
    words = ["--url", "http://h:1", "--model", "a b", "--api-key-env", "KEY"]
    assert main(["connect", "claude", *words]) == 0
    assert (
        "tightloop connect claude --url http://h:1/v1 --model 'a b' --api-key-env KEY -- -p 'make"
        in capsys.readouterr().out
    )


def test_a_written_program_is_started_where_it_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The person's directory may be another one."""
    directory = tmp_path / "a b"
    assert main(["connect", "openai", "--model", "m", "--write", str(directory)]) == 0
    assert f"  python '{directory}/hello.py'\n" in capsys.readouterr().out


def test_without_a_home_directory_one_must_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a user without an entry in a container."""

    def no_home() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", no_home)
    for name in ("TIGHTLOOP_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with scripted_server() as url:
        words = ["--url", url, "--client", str(fake_client(tmp_path))]
        assert main(["connect", "codex", *words, "--", "exec"]) == 2
    assert "--state-dir" in capsys.readouterr().err


def test_a_model_that_is_not_served_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the names of those that are."""
    client = fake_client(tmp_path)
    with scripted_server() as url:
        words = ["--url", url, "--model", "gpt-9", "--client", str(client), "--", "exec"]
        assert main(["connect", "codex", *words]) == 2
    assert "does not serve 'gpt-9'; it serves scripted" in capsys.readouterr().err


def test_a_client_is_run_with_its_own_directory(tmp_path: Path) -> None:
    """Words, standard input, both outputs, the key and the status pass through unchanged."""
    client = fake_client(tmp_path)
    with scripted_server("s3cret") as url:
        words = ["--url", url, "--client", str(client), "--state-dir", str(tmp_path / "state")]
        done = subprocess.run(
            [sys.executable, "-m", "tightloop", "connect", "codex", *words, "--", "exec", "--", "a b"],
            input="from stdin", capture_output=True, text=True, timeout=50, check=False,
            env={**os.environ, "TIGHTLOOP_API_KEY": "s3cret", "CODEX_HOME": "/the/users"},
        )  # fmt: skip
    home = tmp_path / "state" / "clients" / "codex"
    assert done.stdout == f"exec|--|a b|{home}|s3cret|from stdin"
    assert (done.returncode, done.stderr) == (7, "on-stderr\n")
    assert 'model = "scripted"' in (home / "config.toml").read_text()


def fake_client(directory: Path) -> Path:
    path = directory / "fake-codex"
    path.write_text(FAKE_CLIENT)
    path.chmod(0o755)
    return path
