"""How many tokens a request would have, where the model's tokeniser is not at hand."""

from typing import Final

import msgspec

from tightloop.engine.interface import GenerationRequest
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OpaqueItem,
)
from tightloop.protocol.requests import CustomTool, FunctionTool, Tool

CHARS_PER_TOKEN: Final = 4
"""English prose and code lie between 3 and 5 with today's vocabularies of 100k tokens and more."""

ITEM_TOKENS: Final = 4
"""Role and separators of one message."""


def estimate_tokens(request: GenerationRequest) -> int:
    """Tokens of the context, the instructions and the tools; good to perhaps a third."""
    items = request.context()
    num_chars = len(request.instructions or "")
    num_chars += sum(_item_chars(item) for item in items)
    num_chars += sum(_tool_chars(tool) for tool in request.tools)
    return -(-num_chars // CHARS_PER_TOKEN) + ITEM_TOKENS * len(items)


def _item_chars(item: Item) -> int:
    match item:
        case Message():
            return len(item.text)
        case FunctionCall():
            return len(item.name) + len(item.arguments)
        case CustomToolCall():
            return len(item.name) + len(item.input)
        case FunctionCallOutput() | CustomToolCallOutput():
            return len(item.output)
        case OpaqueItem():
            return 0  # tools kept as items are counted as tools
        case _:
            return 0  # models read none of their earlier reasoning, or only the latest


def _tool_chars(tool: Tool) -> int:
    if isinstance(tool, FunctionTool):
        schema = len(msgspec.json.encode(tool.parameters)) if tool.parameters else 0
        return len(tool.name) + len(tool.description) + schema
    if isinstance(tool, CustomTool):
        return len(tool.name) + len(tool.description) + len(tool.grammar or "")
    return 0
