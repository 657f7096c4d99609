"""What the bundled model says when a server asks it to sum up the conversation.

The network cannot do that; the facts are in the items. The same items always give the same text.
"""

import json
import re
from collections.abc import Iterator, Sequence

from tightloop.engine.families.client_tools import plain_output
from tightloop.engine.families.v4a import patched_path
from tightloop.protocol.compaction import SUMMARY_HEAD
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
)

ASKS_FOR_SUMMARY = "Summarize this conversation"
"""How a server's request for a summary begins."""

_COMMAND_KEYS = ("cmd", "command", "script", "bash_command", "commands")
_PATCH_KEYS = ("input", "patch")
_RESULT = re.compile(r"^.*\b\d+ (?:passed|failed|errors?)\b.*$", re.MULTILINE)
_MAX_ASKED, _MAX_EARLIER, _MAX_COMMANDS = 500, 2000, 20


def is_summary(message: Message) -> bool:
    """Whether the message stands for an earlier part of the conversation."""
    return message.role == "user" and message.text.startswith(SUMMARY_HEAD)


def asks_for_summary(items: Sequence[Item]) -> bool:
    """Whether the last item asks for a summary of the others."""
    last = items[-1] if items else None
    return isinstance(last, Message) and last.text.startswith(ASKS_FOR_SUMMARY)


def summary_of(items: Sequence[Item]) -> str:
    """What was asked, which commands ran, which files were patched, what the tests said last."""
    earlier, asked = "", "nothing yet"
    for item in items[:-1]:
        if isinstance(item, Message) and is_summary(item):
            earlier = item.text.removeprefix(SUMMARY_HEAD)
        elif isinstance(item, Message) and item.role == "user":
            asked = item.text
    commands, patched, result = _work(items)
    lines = [f"Asked for: {asked.strip()[:_MAX_ASKED]}"]
    if earlier:
        lines.append(f"Before that: {earlier.strip()[:_MAX_EARLIER]}")
    shown = "; ".join(f"`{command}`" for command in commands[-_MAX_COMMANDS:])
    lines.append(f"Commands run: {shown or 'none'}.")
    counts = (f"{path} ({patched.count(path)})" for path in dict.fromkeys(patched))
    lines.append(f"Candidates tried, by file: {', '.join(counts) or 'none'}.")
    lines.append(f"Last test result: {result or 'none'}.")
    return "\n".join(lines)


def _work(items: Sequence[Item]) -> tuple[list[str], list[str], str]:
    """Commands in order, patched files in order, and pytest's last closing line."""
    commands: list[str] = []
    patched: list[str] = []
    result = ""
    for call, output in _calls(items):
        patch = _text_under(call, _PATCH_KEYS)
        path = patched_path(patch) if patch else None
        if path is not None:
            patched.append(path)
            continue
        command = _text_under(call, _COMMAND_KEYS)
        if command:
            commands.append(command)
        found = _RESULT.findall(plain_output(output))
        if found:
            result = found[-1].strip(" =")
    return commands, patched, result


def _calls(items: Sequence[Item]) -> Iterator[tuple[FunctionCall | CustomToolCall, str]]:
    outputs = {
        item.call_id: item.output
        for item in items
        if isinstance(item, FunctionCallOutput | CustomToolCallOutput)
    }
    for item in items:
        if isinstance(item, FunctionCall | CustomToolCall):
            yield item, outputs.get(item.call_id, "")


def _text_under(call: FunctionCall | CustomToolCall, keys: Sequence[str]) -> str | None:
    """The text that a call carries under one of ``keys``; the input of a free-form call."""
    if isinstance(call, CustomToolCall):
        return call.input if "input" in keys else None
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        return None
    if not isinstance(arguments, dict):
        return None
    value = next((arguments[key] for key in keys if key in arguments), None)
    if isinstance(value, list):
        value = value[-1] if value else None
    return value if isinstance(value, str) else None
