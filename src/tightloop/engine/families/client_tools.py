"""Which of a client's tools runs commands and which applies patches, and how each is called."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tightloop.protocol.items import CustomToolCall, FunctionCall
from tightloop.protocol.requests import CustomTool, FunctionTool, Tool

_SHELL_NAMES = ("exec_command", "shell_command", "shell", "bash", "command", "run_command")
_SHELL_KEYS = ("cmd", "command", "script", "bash_command", "commands")
_TIMEOUT_KEYS = {"timeout_s": 1, "timeout_ms": 1000}  # to its unit per second
_PATCH_KEYS = ("input", "patch")
_LAST_LINES = re.compile(r"(?:\A|\n)Process [^\n]*\nWall time: [\d.]+ seconds\Z")
_WRAPPER_LINE = re.compile(r"[A-Z][\w ]*:|Process ")


@dataclass(frozen=True, slots=True)
class ShellTool:
    """A tool that runs a command line; ``is_list`` when it takes words instead of a line.

    ``timeout_key`` is its parameter for a deadline, if it has one.
    """

    name: str
    key: str = "cmd"
    is_list: bool = False
    timeout_key: str | None = None

    def arguments(self, command: str, timeout_s: int | None = None) -> str:
        """JSON arguments of a call that runs ``command``, with a deadline where one can be set."""
        fields: dict[str, object] = {
            self.key: ["bash", "-lc", command] if self.is_list else command
        }
        if timeout_s is not None and self.timeout_key is not None:
            fields[self.timeout_key] = timeout_s * _TIMEOUT_KEYS[self.timeout_key]
        return json.dumps(fields, ensure_ascii=False)

    def command_of(self, call: FunctionCall) -> str | None:
        """The command line of an earlier call, or None when it is not one of this tool's."""
        if call.name != self.name:
            return None
        try:
            value = json.loads(call.arguments)[self.key]
        except (ValueError, KeyError, TypeError):
            return None
        if isinstance(value, list):
            return str(value[-1]) if value else None
        return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class PatchTool:
    """A tool that takes a V4A patch, as free text or under ``key`` of a JSON object."""

    name: str
    is_custom: bool
    key: str = "input"

    def body(self, patch: str) -> str:
        """What the call carries: the patch itself, or JSON arguments."""
        return patch if self.is_custom else json.dumps({self.key: patch}, ensure_ascii=False)

    def patch_of(self, call: FunctionCall | CustomToolCall) -> str | None:
        """The patch of an earlier call, or None when it is not one of this tool's."""
        if call.name != self.name:
            return None
        if isinstance(call, CustomToolCall):
            return call.input
        try:
            value = json.loads(call.arguments)[self.key]
        except (ValueError, KeyError, TypeError):
            return None
        return value if isinstance(value, str) else None


def find_shell(tools: Sequence[Tool]) -> ShellTool | None:
    """The tool that runs commands, known by its name; None when the client offers none."""
    functions = {tool.name.lower(): tool for tool in tools if isinstance(tool, FunctionTool)}
    for name in _SHELL_NAMES:
        tool = functions.get(name)
        if tool is None:
            continue
        properties = (tool.parameters or {}).get("properties") or {}
        key = next((key for key in _SHELL_KEYS if key in properties), "cmd")
        schema = properties.get(key)
        is_list = isinstance(schema, dict) and schema.get("type") == "array"
        timeout_key = next((key for key in _TIMEOUT_KEYS if key in properties), None)
        return ShellTool(tool.name, key, is_list, timeout_key)
    return None


def find_patch(tools: Sequence[Tool]) -> PatchTool | None:
    """The tool ``apply_patch``, the free-form one if both are offered."""
    named = [
        t for t in tools if isinstance(t, FunctionTool | CustomTool) and t.name == "apply_patch"
    ]
    if any(isinstance(tool, CustomTool) for tool in named):
        return PatchTool("apply_patch", is_custom=True)
    for tool in named:
        properties = (
            (tool.parameters or {}).get("properties") or {}
            if isinstance(tool, FunctionTool)
            else {}
        )
        key = next((key for key in _PATCH_KEYS if key in properties), "input")
        return PatchTool("apply_patch", is_custom=False, key=key)
    return None


def plain_output(output: str) -> str:
    """What the command itself printed, without the lines a client puts around it."""
    if output.startswith("{"):
        try:
            value = json.loads(output)
        except ValueError:
            return output
        inner = value.get("output") if isinstance(value, dict) else None
        return inner if isinstance(inner, str) else output
    last = _LAST_LINES.search(output)
    return output[: last.start()] if last else _unwrapped(output)


def _unwrapped(output: str) -> str:
    """Line by line: one expression for all of them took 4 times as long for each further line."""
    start = 0
    while (end := output.find("\n", start)) >= 0:
        line = output[start:end]
        if line == "Output:":
            return output[end + 1 :]
        if not _WRAPPER_LINE.match(line):
            return output
        start = end + 1
    return output
