"""Conversations of a coding agent, made up to a wanted size, for programs that measure turns.

Tool rounds over real source text, because that is what tokenisers and compressors meet; the shape
is what an agent sends: a call of ``exec_command`` and its output, over and over.
"""

import json
import random
from pathlib import Path
from typing import Any

NEW_BYTES = 4096
"""Size of the one tool output that a follow-up turn brings."""

BYTES_PER_TOKEN = 4
"""Of a coding agent's histories, as measured; tokenisers differ by about a quarter."""

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "name": name,
        "description": "run one command in the workspace " * 8,
        "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}},
    }
    for name in ("exec_command", "apply_patch")
]


def history(num_bytes: int) -> list[dict[str, Any]]:
    """Tool rounds worth ``num_bytes`` of JSON, ending in the call that the new item answers."""
    source = _source()
    items: list[dict[str, Any]] = [message("fix the failing test")]
    size = 0
    while size < num_bytes:
        number = len(items)
        text = source[number % 1000 :][: min(4096, num_bytes - size)]
        arguments = json.dumps({"cmd": f"sed -n 1,{number}p file.py"})
        items.append(call(f"call_{number}", arguments))
        items.append(output(f"call_{number}", text))
        size += len(text) + 250
    items.append(call("call_open", "{}"))
    return items


def message(text: str) -> dict[str, Any]:
    """A user's message."""
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def call(call_id: str, arguments: str) -> dict[str, Any]:
    """A call of ``exec_command``."""
    named = {"type": "function_call", "call_id": call_id, "name": "exec_command"}
    return {**named, "arguments": arguments}


def output(call_id: str, text: str) -> dict[str, Any]:
    """What the call gave."""
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def tool_output(rng: random.Random) -> str:
    """``NEW_BYTES`` of text that no earlier turn had, so that no cache of prompts knows it."""
    mark = f"run {rng.getrandbits(64):016x}\n"
    start = rng.randrange(1000)
    return (mark + _source()[start : start + NEW_BYTES])[:NEW_BYTES]


def _source() -> str:
    """ASCII source text, long enough for any slice taken here."""
    text = Path(__file__).read_text("ascii")
    return text * (2 + 2 * NEW_BYTES // len(text))
