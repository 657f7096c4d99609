"""Texts of a conversation that its next answer may repeat, in the spelling it would repeat them in.

Tool calls carry their text as JSON strings, so a file is drafted in its quoted form; plain as it
stands it is part of the prompt, which prompt lookup covers. Patches put a sign before each line.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

from tightloop.engine.interface import Node
from tightloop.protocol.items import CustomToolCallOutput, FunctionCallOutput, Item

MAX_TEXTS: Final = 4
"""Latest tool outputs looked at."""

MAX_NODES: Final = 8
"""Round trips looked back."""

MIN_CHARS: Final = 64
MAX_CHARS: Final = 32_768
"""Of one text; shorter ones are not worth a look, of longer ones only the beginning is used."""

PIECE_CHARS: Final = 1024
"""Read at once: tokenising a piece takes well under a millisecond."""

_NUMBERED: Final = re.compile(r"^ *\d+(?:\t|[:|](?: |$))")


def edited_texts(items: Sequence[Item], parent: Node | None) -> list[str]:
    """Outputs of the latest tool calls, newest first; line numbers of a listing are removed."""
    found: list[str] = []
    for _ in range(MAX_NODES):
        for item in reversed(items):
            if isinstance(item, FunctionCallOutput | CustomToolCallOutput):
                if len(item.output) >= MIN_CHARS:
                    found.append(without_numbers(item.output[:MAX_CHARS]))
                if len(found) == MAX_TEXTS:
                    return found
        if parent is None:
            break
        items, parent = parent.items, parent.parent
    return found


def without_numbers(text: str) -> str:
    """``text`` without the line numbers that ``cat -n`` and others put before each line."""
    lines = text.splitlines(keepends=True)
    marks = [_NUMBERED.match(line) for line in lines]
    if not lines or sum(mark is not None for mark in marks) < 0.9 * len(lines):
        return text
    return "".join(
        line[mark.end() :] if mark else line for line, mark in zip(lines, marks, strict=True)
    )


def pieces(text: str) -> Iterator[str]:
    """``text`` in pieces that end with a line, or after ``PIECE_CHARS`` where a line is longer."""
    start = 0
    while start < len(text):
        end = start + PIECE_CHARS
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        yield text[start:end]
        start = end


def quoted(text: str) -> str:
    """``text`` as it stands inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def patch_context(text: str) -> str:
    """``text`` as unchanged lines of a patch."""
    return "".join(f" {line}" for line in text.splitlines(keepends=True))
