"""Output items as a server writes them: complete, with the ids and statuses strict clients want."""

from typing import Any

from tightloop.protocol.items import CustomToolCall, FunctionCall


def message_item(item_id: str, text: str | None, status: str) -> dict[str, Any]:
    """An assistant message of one text part; ``text`` None is a message not yet begun."""
    return {
        "type": "message",
        "id": item_id,
        "status": status,
        "role": "assistant",
        "content": [] if text is None else [text_part(text)],
    }


def text_part(text: str) -> dict[str, Any]:
    """An ``output_text`` part."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def summary_part(text: str) -> dict[str, Any]:
    """A part of a reasoning summary."""
    return {"type": "summary_text", "text": text}


def reasoning_item(item_id: str, text: str | None, status: str | None = None) -> dict[str, Any]:
    """A reasoning item of one summary part; ``text`` None is one not yet begun.

    ``encrypted_content`` is empty, not absent: strict clients look for the key.
    """
    item = {
        "type": "reasoning",
        "id": item_id,
        "summary": [] if text is None else [summary_part(text)],
        "encrypted_content": "",
    }
    return item if status is None else {**item, "status": status}


def call_item(call: FunctionCall | CustomToolCall, item_id: str, status: str) -> dict[str, Any]:
    """A tool call; ``namespace`` is there only when the tool came in one."""
    is_custom = isinstance(call, CustomToolCall)
    item = {
        "type": "custom_tool_call" if is_custom else "function_call",
        "id": item_id,
        "call_id": call.call_id,
        "name": call.name,
    }
    if isinstance(call, CustomToolCall):
        item["input"] = call.input
    else:
        item["arguments"] = call.arguments
    item["status"] = status
    if call.namespace is not None:
        item["namespace"] = call.namespace
    return item
