"""The ways in which a chat ends, where no screen is needed to see them."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from tightloop.agent.terminal.editor import Editor
from tightloop.agent.terminal.terminal import Terminal
from tightloop.cli.chat import options
from tightloop.cli.chat.chat import Chat
from tightloop.cli.chat.commands import COMMANDS
from tightloop.cli.chat.completing import Completing
from tightloop.cli.chat.exit_status import CRASHED, DONE
from tightloop.cli.chat.running import run_chat
from tightloop.cli.chat.stray_output import stray_output


@pytest.fixture
def arguments(tmp_path: Path) -> Namespace:
    """For a chat with an echo, about a directory of its own."""
    (tmp_path / "repo").mkdir()
    parser = ArgumentParser()
    options.configure(parser)
    places = ["--repo", str(tmp_path / "repo"), "--state-dir", str(tmp_path / "state")]
    return parser.parse_args(["hello", *places, "--model", "scripted", "--sandbox", "none"])


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int]]:
    """What it reads, where that comes from, and where it writes."""
    read_end, write_end = os.pipe()
    output = os.memfd_create("screen")
    yield read_end, write_end, output
    for fd in (read_end, write_end, output):
        os.close(fd)


def ran(arguments: Namespace, pipes: tuple[int, int, int]) -> tuple[int, str]:
    """The status, and all that was printed on standard output."""
    read_end, _, output = pipes
    editor, completing = Editor(), Completing(COMMANDS)
    with Terminal({"TERM": "dumb"}, input_fd=read_end, output_fd=output) as terminal:
        status = run_chat(terminal, editor, completing, arguments)
    os.lseek(output, 0, os.SEEK_SET)
    return status, os.read(output, 1 << 20).decode()


def test_lines_in_and_lines_out(arguments: Namespace, pipes: tuple[int, int, int]) -> None:
    """A terminal that cannot redraw; nothing waits for the message that is still to be sent."""
    os.write(pipes[1], b"/latency\n/quit\n")
    status, text = ran(arguments, pipes)
    assert status == DONE
    assert "no turn has ended yet" in text


def test_a_crash_says_where_its_details_are(
    arguments: Namespace,
    pipes: tuple[int, int, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def broken(chat: Chat) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(Chat, "_begin", broken)
    status, _ = ran(arguments, pipes)
    assert status == CRASHED
    said = capsys.readouterr().err
    assert "not sent: hello" in said
    assert "tightloop: crashed: RuntimeError: a mistake of ours" in said
    details = next(row for row in said.splitlines() if row.startswith("details: "))
    assert "a mistake of ours" in Path(details.removeprefix("details: ")).read_text()
    assert "log: " in said


def test_a_broken_key_handler_is_a_crash_too(
    arguments: Namespace,
    pipes: tuple[int, int, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The loop would only log what a callback raises."""

    def broken(chat: Chat, key: object) -> None:
        raise RuntimeError(f"no such key: {key}")

    monkeypatch.setattr(Chat, "press", broken)
    os.write(pipes[1], b"x\n")
    status, _ = ran(arguments, pipes)
    assert status == CRASHED
    assert "no such key" in capsys.readouterr().err


def test_what_is_no_terminal_is_left_alone(tmp_path: Path) -> None:
    with stray_output(tmp_path / "stray.txt"):
        os.write(2, b"")
    assert not (tmp_path / "stray.txt").exists()


@pytest.mark.parametrize("text", [b"", b"a library says\n"])
def test_what_libraries_print_goes_into_a_file(tmp_path: Path, text: bytes) -> None:
    """Where standard error is a terminal; an empty file is removed."""
    parent, child = os.openpty()
    before = os.dup(2)
    os.dup2(child, 2)
    try:
        with stray_output(tmp_path / "runs" / "stray.txt"):
            os.write(2, text)
        assert os.isatty(2)
    finally:
        os.dup2(before, 2)
        for fd in (before, parent, child):
            os.close(fd)
    found = tmp_path / "runs" / "stray.txt"
    assert (found.read_bytes() if found.exists() else b"") == text
