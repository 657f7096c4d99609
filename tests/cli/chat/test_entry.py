"""What is a chat on the command line, and where there is none to be had."""

import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest

from tests.cli.chat.pseudo_terminal import script_file
from tightloop.cli.chat import entry, options
from tightloop.cli.main import _is_chat, build_parser


@pytest.mark.parametrize(
    "words", [[], ["--model", "x"], ["fix the test"], ["--resume"], ["--repo", ".", "fix it"]]
)
def test_no_verb(words: list[str]) -> None:
    assert _is_chat(words)


@pytest.mark.parametrize("words", [["exec"], ["tset"], ["--help"], ["-h"], ["--version"]])
def test_a_verb_or_a_slip(words: list[str]) -> None:
    """One word alone is a verb: a slip of the finger must not start an agent."""
    assert not _is_chat(words)


def test_help_names_the_options_of_both() -> None:
    text = build_parser().format_help()
    assert "the agent, without a verb:" in text
    assert "--resume" in text


def tightloop(*words: str, **more: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tightloop", *words],
        capture_output=True, text=True, timeout=50, check=False, **more,
    )  # fmt: skip


def test_behind_a_pipe_it_is_exec(tmp_path: Path) -> None:
    """Plain lines, one turn, and the repository left alone."""
    (tmp_path / "repo").mkdir()
    model = script_file(tmp_path / "script.json", [[{"text": "Hello from the script."}]])
    options = ["--model", model, "--sandbox", "none", "--repo", str(tmp_path / "repo")]
    done = tightloop(*options, "--state-dir", str(tmp_path / "state"), input="say hello\n")
    assert done.returncode == 0, done.stderr
    assert "Hello from the script." in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_output_must_be_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    options.configure(parser)
    assert entry.run(parser.parse_args([])) == 2
    assert "standard output is not a terminal; 'tightloop exec'" in capsys.readouterr().err
