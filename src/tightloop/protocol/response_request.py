"""The body of a request to an upstream that speaks the Responses API.

Items go up without their ids: those are ours, and a host that stores nothing knows none. So do items
that only their maker can read. ``ItemList`` keeps the JSON of a conversation's items, as
``chat_messages.Transcript`` keeps messages.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import msgspec
from msgspec import Raw

from tightloop.protocol.compaction import unseal, visible
from tightloop.protocol.items import (
    Compaction,
    Item,
    OpaqueItem,
    Reasoning,
    encode_items,
)
from tightloop.protocol.output_format import OutputFormat
from tightloop.protocol.requests import CustomTool, FunctionTool, Tool, ToolChoice

_encode: Final = msgspec.json.Encoder().encode


def sendable(items: Iterable[Item], *, plain_reasoning: bool = False) -> list[Item]:
    """The items that a host can be sent, without our ids.

    Reasoning goes back only in the encrypted form, which its maker can check, or with
    ``plain_reasoning``. Items of types that are not known here mean nothing elsewhere.
    """
    found: list[Item] = []
    for item in visible(items):
        if isinstance(item, OpaqueItem):
            continue
        if isinstance(item, Reasoning) and not (item.encrypted_content or plain_reasoning):
            continue
        found.append(msgspec.structs.replace(item, id=None) if item.id else item)
    return found


def encode_input(items: Iterable[Item], *, plain_reasoning: bool = False) -> bytes:
    """The JSON of ``sendable`` items, joined by commas, without brackets."""
    return encode_items(sendable(items, plain_reasoning=plain_reasoning))[1:-1]


def hides_earlier(items: Iterable[Item]) -> bool:
    """Whether a summary among ``items`` takes the place of what came before it."""
    return any(isinstance(item, Compaction) and unseal(item).hides_earlier for item in items)


@dataclass(frozen=True, slots=True)
class ItemList:
    """The items up to a place in a conversation. Immutable; shares its parent's pieces."""

    plain_reasoning: bool = False
    parent: "ItemList | None" = None
    piece: bytes = b""

    @property
    def num_bytes(self) -> int:
        """Of this step alone."""
        return len(self.piece)

    def extended(self, items: Sequence[Item]) -> Self:
        """The list with ``items`` after it."""
        parent = None if hides_earlier(items) else self
        piece = encode_input(items, plain_reasoning=self.plain_reasoning)
        return type(self)(self.plain_reasoning, parent, piece)

    def pieces(self) -> list[bytes]:
        """Oldest first; none is empty."""
        found: list[bytes] = []
        step: ItemList | None = self
        while step is not None:
            if step.piece:
                found.append(step.piece)
            step = step.parent
        found.reverse()
        return found


def encode_response_tools(tools: Sequence[Tool]) -> Raw:
    """The JSON of ``tools``; those of one namespace come in one ``namespace`` tool."""
    wires: list[dict[str, Any]] = []
    spaces: dict[str, list[dict[str, Any]]] = {}
    for tool in tools:
        if not isinstance(tool, FunctionTool | CustomTool):
            continue
        wire = _tool(tool)
        if tool.namespace is None:
            wires.append(wire)
            continue
        if tool.namespace not in spaces:
            inner = spaces[tool.namespace] = []
            wires.append({"type": "namespace", "name": tool.namespace, "tools": inner})
        spaces[tool.namespace].append(wire)
    return Raw(_encode(wires))


def _tool(tool: FunctionTool | CustomTool) -> dict[str, Any]:
    if isinstance(tool, FunctionTool):
        return {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters or {"type": "object", "properties": {}},
            "strict": tool.strict,
        }
    wire: dict[str, Any] = {
        "type": "custom",
        "name": tool.name,
        "description": tool.description,
    }
    if tool.grammar is not None:
        wire["format"] = {"type": "grammar", "syntax": tool.syntax, "definition": tool.grammar}
    return wire


def response_fields(
    tools: Sequence[Tool],
    *,
    encoded_tools: Raw | None = None,
    instructions: str | None = None,
    tool_choice: ToolChoice = "auto",
    parallel_tool_calls: bool = True,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    max_output_tokens: int | None = None,
    output_format: OutputFormat | None = None,
    reasoning_effort: str | None = None,
) -> dict[str, Any]:
    """Everything in a body but ``model``, ``input`` and ``previous_response_id``. Nothing is stored."""
    fields: dict[str, Any] = {
        "store": False,
        "instructions": instructions,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "max_output_tokens": max_output_tokens,
        "text": None if output_format is None else {"format": _format(output_format)},
        "reasoning": None if reasoning_effort is None else {"effort": reasoning_effort},
    }
    if tools:
        fields["tools"] = encoded_tools or encode_response_tools(tools)
        fields["tool_choice"] = _choice(tool_choice, tools)
        fields["parallel_tool_calls"] = None if parallel_tool_calls else False
    return {key: value for key, value in fields.items() if value is not None}


def _choice(choice: ToolChoice, tools: Sequence[Tool]) -> str | dict[str, str]:
    if choice in ("auto", "none", "required"):
        return choice
    is_custom = any(isinstance(tool, CustomTool) and tool.name == choice for tool in tools)
    return {"type": "custom" if is_custom else "function", "name": choice}


def _format(wanted: OutputFormat) -> dict[str, Any]:
    if wanted.schema is None:
        return {"type": "json_object"}
    fields: dict[str, Any] = {"type": "json_schema", "name": wanted.name, "schema": wanted.schema}
    if wanted.strict is not None:
        fields["strict"] = wanted.strict
    return fields
