"""Clients name their tools differently; calls are written and read back in their way."""

import json

import pytest

from tightloop.engine.families.client_tools import (
    ShellTool,
    find_patch,
    find_shell,
    plain_output,
)
from tightloop.protocol.items import CustomToolCall, FunctionCall
from tightloop.protocol.requests import CustomTool, FunctionTool


def function(name: str, **properties: object) -> FunctionTool:
    return FunctionTool(name, "", {"type": "object", "properties": properties})


TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        (function("exec_command", cmd=TEXT), {"cmd": "ls"}),
        (function("bash", command=TEXT, timeout=TEXT), {"command": "ls"}),
        (function("Bash", command=TEXT), {"command": "ls"}),
        (function("shell", command={"type": "array"}), {"command": ["bash", "-lc", "ls"]}),
        (FunctionTool("exec_command"), {"cmd": "ls"}),
    ],
)
def test_shell_tools(tool: FunctionTool, arguments: dict[str, object]) -> None:
    shell = find_shell([function("other", cmd=TEXT), tool])
    assert shell is not None
    written = shell.arguments("ls")
    assert arguments == json.loads(written)
    assert shell.command_of(FunctionCall("c", tool.name, written)) == "ls"
    assert shell.command_of(FunctionCall("c", "other", written)) is None
    assert shell.command_of(FunctionCall("c", tool.name, "broken")) is None


def test_a_client_without_tools() -> None:
    assert find_shell([function("search")]) is None
    assert find_patch([function("edit")]) is None


def test_the_free_form_patch_tool_wins() -> None:
    patch = find_patch([function("apply_patch", input=TEXT), CustomTool("apply_patch")])
    assert patch is not None
    assert patch.is_custom
    assert patch.body("x\ny") == "x\ny"
    assert patch.patch_of(CustomToolCall("c", "apply_patch", "x")) == "x"


@pytest.mark.parametrize("key", ["input", "patch"])
def test_patch_as_a_function(key: str) -> None:
    patch = find_patch([function("apply_patch", **{key: TEXT})])
    assert patch is not None
    body = patch.body('say "x"\n')
    assert json.loads(body) == {key: 'say "x"\n'}
    assert patch.patch_of(FunctionCall("c", "apply_patch", body)) == 'say "x"\n'
    assert patch.patch_of(FunctionCall("c", "apply_patch", "{")) is None
    assert patch.patch_of(FunctionCall("c", "bash", body)) is None


@pytest.mark.parametrize(
    "output",
    [
        "line\nOutput:\nx",
        "line\nOutput:\nx\nProcess exited with code 1\nWall time: 0.1 seconds",
        "Wall time: 0.1 seconds\nProcess exited with code 1\nOutput:\nline\nOutput:\nx",
        "Chunk ID: 3f\nWall time: 0.05 seconds\nProcess exited with code 0\n"
        "Original token count: 9\nOutput:\nline\nOutput:\nx",
        "Exit code: 0\nWall time: 0 seconds\nOutput:\nline\nOutput:\nx",
        json.dumps({"output": "line\nOutput:\nx", "metadata": {"exit_code": 0}}),
    ],
)
def test_what_a_client_puts_around_an_output_is_taken_off(output: str) -> None:
    assert plain_output(output) == "line\nOutput:\nx"


def test_what_only_looks_like_a_clients_lines_stays_and_is_read_in_one_pass() -> None:
    """Backtracking over these would not end within a lifetime."""
    output = "Process a: b\n" * 5000
    assert plain_output(output) == output
    assert plain_output(output + "Output:\nx\nOutput:\n") == "x\nOutput:\n"
    assert plain_output("Chunk ID: 1\nno colon\nOutput:\nx") == "Chunk ID: 1\nno colon\nOutput:\nx"


def test_lines_behind_an_output_are_taken_off_and_nothing_else() -> None:
    """A file is what it was, with or without a newline at its end."""
    last = "Process exited with code 0\nWall time: 1.5 seconds"
    for text in ("", "x", "x\n", "\n", "Process exited with code 0\nx", "Output:\nx"):
        assert plain_output(f"{text}\n{last}" if text else last) == text
    assert plain_output(f"{last}\nx") == f"{last}\nx"


def test_a_file_that_begins_like_json_stays() -> None:
    assert plain_output("{not json") == "{not json"
    assert plain_output('{"a": 1}') == '{"a": 1}'


def test_a_deadline_goes_where_the_tool_takes_one() -> None:
    """In the unit of the parameter's name; left out when there is no such parameter."""
    for name, expected in (("timeout_s", 7), ("timeout_ms", 7000)):
        shell = find_shell([function("exec_command", cmd=TEXT, **{name: {}})])
        assert shell is not None
        assert json.loads(shell.arguments("ls", 7)) == {"cmd": "ls", name: expected}
        assert json.loads(shell.arguments("ls")) == {"cmd": "ls"}
    assert json.loads(ShellTool("bash").arguments("ls", 7)) == {"cmd": "ls"}
