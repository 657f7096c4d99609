"""Commands: what they are called with, what the model reads afterwards, which are tests."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.agent.events import ChangedPath, CommandExecution, FileChange
from tightloop.agent.patch.operations import FileSeen
from tightloop.agent.tools.exec_command import MAX_TIMEOUT_S, ExecCommand, is_test_run
from tightloop.agent.tools.interface import ToolContext
from tightloop.agent.tools.output import MAX_CHARS
from tightloop.sandbox.interface import Command, CommandResult, SandboxError


@dataclass
class Recorded:
    """A sandbox that answers with one result and remembers what it was asked."""

    kind: str = "none"
    pieces: list[bytes] = field(default_factory=list)
    result: CommandResult | SandboxError = field(
        default_factory=lambda: CommandResult(0, "out\n", 0, 1_500_000_000)
    )
    commands: list[Command] = field(default_factory=list)

    async def start(self) -> None:
        """Nothing to start."""

    async def run(
        self, command: Command, on_output: Callable[[bytes], None] | None = None
    ) -> CommandResult:
        self.commands.append(command)
        for piece in self.pieces:
            assert on_output is not None
            on_output(piece)
        if isinstance(self.result, SandboxError):
            raise self.result
        return self.result

    async def close(self) -> None:
        """Nothing to end."""


async def test_a_command_line() -> None:
    sandbox = Recorded()
    context = ToolContext(Path("/ws"), sandbox, item_id="item_7")
    result = await ExecCommand().run(
        '{"cmd": "make x", "workdir": "/ws/a", "timeout_s": 5}', context
    )
    assert sandbox.commands == [Command(script="make x", cwd="a", timeout_s=5.0)]
    assert result.text == "out\n\nProcess exited with code 0\nWall time: 1.5 seconds"
    assert result.item == CommandExecution("item_7", "make x", "out\n", 0, "completed")


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ('{"cmd": ["ls", "-l"]}', Command(argv=["ls", "-l"])),
        ('{"command": ["bash", "-lc", "a && b"]}', Command(script="a && b")),
        ('{"cmd": "x", "timeout_s": 99999}', Command(script="x", timeout_s=MAX_TIMEOUT_S)),
        ('{"cmd": "x", "timeout_s": null, "workdir": ""}', Command(script="x")),
        ('{"cmd": "x", "yield_time_ms": 1000}', Command(script="x")),
    ],
)
async def test_other_spellings(arguments: str, command: Command) -> None:
    sandbox = Recorded()
    await ExecCommand().run(arguments, ToolContext(Path("/ws"), sandbox))
    assert sandbox.commands == [command]


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "{",
        "[]",
        '{"cmd": ""}',
        '{"cmd": []}',
        '{"cmd": ["a", 1]}',
        '{"cmd": "a\\u0000b"}',
        '{"cmd": "a", "timeout_s": 0}',
        '{"cmd": "a", "timeout_s": true}',
        '{"cmd": "a", "timeout_s": "5"}',
        '{"cmd": "a", "workdir": 5}',
        '{"cmd": "a", "workdir": "/elsewhere"}',
        '{"cmd": "\\ud800"}',
    ],
)
async def test_bad_arguments_run_nothing(arguments: str) -> None:
    sandbox = Recorded()
    result = await ExecCommand().run(arguments, ToolContext(Path("/ws"), sandbox))
    assert not result.is_ok
    assert result.text.startswith("exec_command: ")
    assert len(result.text) < 300
    assert sandbox.commands == []
    assert ExecCommand().announce(arguments, "item_0") is None or "elsewhere" in arguments


@pytest.mark.parametrize(
    ("result", "words", "status"),
    [
        (CommandResult(2, "", 0, 0), "exited with code 2", "failed"),
        (CommandResult(-9, "", 0, 0), "ended by signal SIGKILL", "failed"),
        (CommandResult(-9, "", 0, 0, timed_out=True), "killed at its deadline of 120 s", "failed"),
        (SandboxError("the sandbox has died"), "the sandbox has died", "failed"),
        (CommandResult(0, "", 0, 0, how="warm-pytest"), "exited with code 0", "completed"),
    ],
)
async def test_endings(result: CommandResult | SandboxError, words: str, status: str) -> None:
    done = await ExecCommand().run(
        '{"cmd": "x"}', ToolContext(Path("/ws"), Recorded(result=result))
    )
    assert words in done.text
    assert isinstance(done.item, CommandExecution)
    assert (done.item.status, len(done.spans)) == (status, 1)


@pytest.mark.parametrize(
    "command",
    [
        "pytest", "pytest -q tests", "python -m pytest x", "python3.11 -X dev -m unittest",
        "cd a && .venv/bin/pytest", "FOO=1 uv run pytest -q", "timeout 5 npm test", "go test ./...",
        "cargo -q test", "npx vitest run", "tox -e py311", "ls; make test",
    ],
)  # fmt: skip
def test_test_runs(command: str) -> None:
    assert is_test_run(command)


@pytest.mark.parametrize(
    "command",
    ["grep pytest setup.cfg", "cat tests/test_x.py", "pip install pytest-cov", "ls test", "mytest"],
)
def test_other_commands(command: str) -> None:
    assert not is_test_run(command)


def test_definition_is_stable() -> None:
    """The request prefix must not change within a session."""
    assert ExecCommand().definition() == ExecCommand().definition()
    assert os.path.basename(ExecCommand.name) == "exec_command"


@settings(max_examples=30)
@given(
    st.lists(st.text("ab\n\u00e9\U0001f600").map(str.encode) | st.binary(max_size=40), max_size=9),
    st.sampled_from((17, 300, 65_536)),
    st.sampled_from((1, 20, 2_000)),
)
async def test_the_text_begins_with_what_was_told_while_it_ran(
    lines: list[bytes], size: int, num_repeats: int
) -> None:
    """However the output is cut into pieces, long or short, text or not."""
    data = (b"".join(lines) * num_repeats)[:40_000]
    pieces = [data[n : n + size] for n in range(0, len(data), size)]
    result = CommandResult(0, data.decode("utf-8", "replace"), 0, 1_500_000_000)
    told = ""

    def tell(piece: str, keep: int) -> None:
        nonlocal told
        assert keep <= len(told)
        told = told[:keep] + piece

    context = ToolContext(Path("/ws"), Recorded(pieces=pieces, result=result), on_text=tell)
    done = await ExecCommand().run('{"cmd": "x"}', context)
    assert done.text.startswith(told)
    if len(result.output) <= MAX_CHARS:
        assert len(told) >= len(result.output) - 1, "all but a character that has not ended"
    else:
        assert "[... " in told


async def test_a_command_that_prints_nothing() -> None:
    sandbox = Recorded(result=CommandResult(0, "", 0, 0))
    done = await ExecCommand().run('{"cmd": "x"}', ToolContext(Path("/ws"), sandbox))
    assert done.text == "Process exited with code 0\nWall time: 0.0 seconds"


@pytest.mark.parametrize(
    "cmd",
    [
        ["apply_patch", "*** Begin Patch\n*** Add File: f\n+x\n*** End Patch"],
        ["zsh", "-lc", "apply_patch <<'P'\n*** Begin Patch\n*** Add File: f\n+x\n*** End Patch\nP"],
    ],
)
async def test_a_patch_as_an_argument_vector_runs_no_command(
    tmp_path: Path, cmd: list[str]
) -> None:
    sandbox = Recorded()
    heard: list[object] = []
    context = ToolContext(tmp_path, sandbox, on_patch=heard.append)
    arguments = msgspec.json.encode({"cmd": cmd}).decode()
    assert ExecCommand().announce(arguments, "item_0") is None
    result = await ExecCommand().run(arguments, context)
    assert result.item == FileChange("item_0", (ChangedPath("f", "add"),))
    assert (tmp_path / "f").read_bytes() == b"x\n"
    assert sandbox.commands == []
    assert heard[0] == FileSeen("add", "f", 2)
