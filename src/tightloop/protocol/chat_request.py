"""The body of a Chat Completions request to an upstream server; ``chat_messages`` has its messages."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from tightloop.protocol.chat_messages import CUSTOM_INPUT, build_messages
from tightloop.protocol.items import Item
from tightloop.protocol.output_format import OutputFormat
from tightloop.protocol.requests import CustomTool, FunctionTool, OpaqueTool, Tool, ToolChoice


def build_request(
    items: Iterable[Item],
    instructions: str | None = None,
    tools: Sequence[Tool] = (),
    *,
    model: str,
    include_reasoning: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """The request body as a dict of JSON values; ``options`` are those of ``request_fields``.

    ``include_reasoning`` sends earlier reasoning back as ``reasoning_content``. Raises ``ApiError`` 400
    for content that a chat cannot carry, and for an output whose call is not among ``items``.
    """
    messages = build_messages(items, instructions, include_reasoning=include_reasoning)
    return {"model": model, "messages": messages, **request_fields(tools, **options)}


def request_fields(
    tools: Sequence[Tool] = (),
    *,
    tool_choice: ToolChoice = "auto",
    parallel_tool_calls: bool = True,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    max_output_tokens: int | None = None,
    stop: Sequence[str] = (),
    stream: bool = True,
    output_format: OutputFormat | None = None,
    reasoning_effort: str | None = None,
    prediction: str | None = None,
    limit_field: str = "max_tokens",
    encoded_tools: Raw | None = None,
) -> dict[str, Any]:
    """Everything in a body but ``model`` and ``messages``, asking for a stream with a usage chunk.

    Custom tools become functions with the one string argument ``input``, their grammar a note in
    the description: a chat has no way to demand it. Tool types without a chat equivalent are left
    out. Tools narrowed by ``allowed_tools`` are simply the tools. ``limit_field`` is what the host
    calls the limit on output tokens. ``encoded_tools`` is ``encode_tools(tools)``, if it is at hand.
    """
    fields: dict[str, Any] = {
        "stream": stream,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        limit_field: max_output_tokens,
        "stop": list(stop) or None,
        "stream_options": {"include_usage": True} if stream else None,
        "response_format": None if output_format is None else _response_format(output_format),
        "reasoning_effort": reasoning_effort,
        "prediction": None if prediction is None else {"type": "content", "content": prediction},
    }
    functions = _functions(tools) if encoded_tools is None else encoded_tools
    if functions and tools:
        fields["tools"] = functions
        fields["tool_choice"] = _choice(tool_choice)
        fields["parallel_tool_calls"] = None if parallel_tool_calls else False
    return {key: value for key, value in fields.items() if value is not None}


def encode_tools(tools: Sequence[Tool]) -> Raw:
    """The JSON of ``tools`` in a body: clients repeat theirs with every request."""
    return Raw(msgspec.json.encode(_functions(tools)))


def _functions(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    return [_function(tool) for tool in tools if not isinstance(tool, OpaqueTool)]


def custom_tool_names(tools: Iterable[Tool]) -> frozenset[str]:
    """Names of the custom tools, as ``ChatStreamParser`` wants them."""
    return frozenset(tool.name for tool in tools if isinstance(tool, CustomTool))


def _response_format(wanted: OutputFormat) -> dict[str, Any]:
    if wanted.schema is None:
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": wanted.name, "schema": wanted.schema}
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": schema}


def _function(tool: FunctionTool | CustomTool) -> dict[str, Any]:
    if isinstance(tool, CustomTool):
        return {"type": "function", "function": _custom_function(tool)}
    function: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters or {"type": "object", "properties": {}},
    }
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _custom_function(tool: CustomTool) -> dict[str, Any]:
    description = tool.description
    if tool.grammar:
        form = "Lark grammar" if tool.syntax == "lark" else "regular expression"
        description = f"{description}\n\nThe input follows this {form}:\n{tool.grammar}".strip()
    return {
        "name": tool.name,
        "description": description,
        "parameters": {
            "type": "object",
            "properties": {CUSTOM_INPUT: {"type": "string", "description": "The whole input"}},
            "required": [CUSTOM_INPUT],
            "additionalProperties": False,
        },
    }


def _choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}
