"""From Responses items to the body of a Chat Completions request, for an upstream server.

The order of a chat is stricter than that of items: a tool message must follow the assistant
message that made the call, and many chat templates accept a system message in the first place
only. So neighbouring output items become one assistant message, outputs move up to their calls,
leading system and developer messages (and the instructions) become one system message, and later
ones become user messages. Tool messages are text for most hosts, so images in a tool's output follow
in a user message of their own, after the outputs of the same turn.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OpaqueItem,
    OpaquePart,
    Reasoning,
    TextPart,
)
from tightloop.protocol.output_format import OutputFormat
from tightloop.protocol.requests import CustomTool, FunctionTool, OpaqueTool, Tool, ToolChoice

CUSTOM_INPUT: Final = "input"
"""The one argument of the function that stands for a custom tool."""

NO_OUTPUT: Final = "[no output: the call was interrupted]"
"""Stands for the output of a call that never got one; a chat without it would be refused."""

IMAGE_FOLLOWS: Final = "[the output is an image, in the next user message]"
"""The text of a tool message whose output is nothing but images."""


def build_request(
    items: Iterable[Item],
    instructions: str | None = None,
    tools: Sequence[Tool] = (),
    *,
    model: str,
    tool_choice: ToolChoice = "auto",
    parallel_tool_calls: bool = True,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    max_output_tokens: int | None = None,
    stop: Sequence[str] = (),
    stream: bool = True,
    include_reasoning: bool = False,
    output_format: OutputFormat | None = None,
    reasoning_effort: str | None = None,
) -> dict[str, Any]:
    """The request body as a dict of JSON values, asking for a stream with a usage chunk.

    Custom tools become functions with the one string argument ``input``, their grammar a note in
    the description: a chat has no way to demand it. Tool types without a chat equivalent are left
    out. Tools narrowed by ``allowed_tools`` are simply the tools. ``include_reasoning`` sends earlier reasoning back as
    ``reasoning_content``. Raises ``ApiError`` 400 for content that a chat cannot carry, and for
    an output whose call is not among ``items``.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": build_messages(items, instructions, include_reasoning=include_reasoning),
        "stream": stream,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "max_tokens": max_output_tokens,
        "stop": list(stop) or None,
        "stream_options": {"include_usage": True} if stream else None,
        "response_format": None if output_format is None else _response_format(output_format),
        "reasoning_effort": reasoning_effort,
    }
    functions = [_function(tool) for tool in tools if not isinstance(tool, OpaqueTool)]
    if functions:
        body["tools"] = functions
        body["tool_choice"] = _choice(tool_choice)
        body["parallel_tool_calls"] = None if parallel_tool_calls else False
    return {key: value for key, value in body.items() if value is not None}


def build_messages(
    items: Iterable[Item], instructions: str | None = None, *, include_reasoning: bool = False
) -> list[dict[str, Any]]:
    """The messages alone; see ``build_request``."""
    builder = _Messages(list(items), include_reasoning)
    return builder.build(instructions)


def custom_tool_names(tools: Iterable[Tool]) -> frozenset[str]:
    """Names of the custom tools, as ``ChatStreamParser`` wants them."""
    return frozenset(tool.name for tool in tools if isinstance(tool, CustomTool))


class _Messages:
    """Builds the list of messages in one pass."""

    def __init__(self, items: list[Item], include_reasoning: bool) -> None:
        self._items = items
        self._include_reasoning = include_reasoning
        self._outputs = {
            item.call_id: (index, item)
            for index, item in enumerate(items)
            if isinstance(item, FunctionCallOutput | CustomToolCallOutput)
        }
        self._called: set[str] = set()
        self._messages: list[dict[str, Any]] = []
        self._assistant: dict[str, Any] | None = None  # being collected

    def build(self, instructions: str | None) -> list[dict[str, Any]]:
        system, num_leading = self._leading_system(instructions)
        if system:
            self._messages.append({"role": "system", "content": system})
        for index, item in enumerate(self._items[num_leading:], num_leading):
            self._add(index, item)
        self._flush()
        return self._messages

    def _leading_system(self, instructions: str | None) -> tuple[str, int]:
        texts = [instructions] if instructions else []
        num_leading = 0
        for index, item in enumerate(self._items):
            if isinstance(item, Message) and item.role in ("system", "developer"):
                for n, part in enumerate(item.content):
                    if isinstance(part, OpaquePart):
                        raise _unsupported(part, f"input[{index}].content[{n}]")
                texts.append(item.text)
            elif not isinstance(item, OpaqueItem):
                break
            num_leading += 1
        return "\n\n".join(texts), num_leading

    def _add(self, index: int, item: Item) -> None:
        match item:
            case Message(role="assistant"):
                self._add_assistant_text(item, index)
            case Message():
                self._flush()
                self._messages.append({"role": "user", "content": _content(item, index)})
            case FunctionCall():
                self._add_call(item, item.arguments or "{}")
            case CustomToolCall():
                self._add_call(item, msgspec.json.encode({CUSTOM_INPUT: item.input}).decode())
            case FunctionCallOutput() | CustomToolCallOutput():
                self._check_called(index, item.call_id)
            case Reasoning():
                self._add_reasoning(item)
            case OpaqueItem():
                pass  # nothing a chat could say instead

    def _open_assistant(self) -> dict[str, Any]:
        if self._assistant is None:
            self._assistant = {"role": "assistant", "content": None}
        return self._assistant

    def _add_assistant_text(self, item: Message, index: int) -> None:
        places = (f"input[{index}].content[{n}]" for n in range(len(item.content)))
        text = "".join(map(_assistant_text, item.content, places))
        message = self._open_assistant()
        if message["content"]:
            # Two messages in a row; after calls the text still belongs to the same turn.
            text = f"{message['content']}\n\n{text}"
        message["content"] = text

    def _add_call(self, item: FunctionCall | CustomToolCall, arguments: str) -> None:
        self._called.add(item.call_id)
        call = {
            "id": item.call_id,
            "type": "function",
            "function": {"name": item.name, "arguments": arguments},
        }
        self._open_assistant().setdefault("tool_calls", []).append(call)

    def _add_reasoning(self, item: Reasoning) -> None:
        text = "".join(item.content) or "".join(item.summary)
        if self._include_reasoning and text:
            self._open_assistant()["reasoning_content"] = text

    def _check_called(self, index: int, call_id: str) -> None:
        if call_id not in self._called:
            raise ApiError(
                f"no tool call with call_id {call_id[:100]!r} comes before its output",
                code="invalid_value",
                param=f"input[{index}].call_id",
            )
        self._flush()

    def _flush(self) -> None:
        """Close the assistant message: its calls' outputs follow it at once."""
        message, self._assistant = self._assistant, None
        if message is None:
            return
        calls = message.get("tool_calls", [])
        if not calls and not message["content"]:
            return  # reasoning alone: a chat has no place for it
        self._messages.append(message)
        images: list[dict[str, Any]] = []
        for call in calls:
            index, output = self._outputs.get(call["id"], (0, None))
            shown = [] if output is None else _shown(output, f"input[{index}].output")
            text = NO_OUTPUT if output is None else output.output
            if shown:
                text = text or IMAGE_FOLLOWS
                images += [{"type": "text", "text": f"Output of {call['id']}:"}, *shown]
            self._messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})
        if images:
            self._messages.append({"role": "user", "content": images})


class _WireImage(msgspec.Struct):
    image_url: str
    detail: str | None = None


class _WireRefusal(msgspec.Struct):
    refusal: str


def _assistant_text(part: TextPart | OpaquePart, where: str) -> str:
    if isinstance(part, TextPart):
        return part.text
    if part.type != "refusal":
        raise _unsupported(part, where)
    return msgspec.json.decode(part.raw, type=_WireRefusal).refusal


def _shown(item: FunctionCallOutput | CustomToolCallOutput, where: str) -> list[dict[str, Any]]:
    """The parts of a tool's output that are more than text, as a user message has them."""
    return [
        _part(part, f"{where}[{n}]")
        for n, part in enumerate(item.parts)
        if isinstance(part, OpaquePart)
    ]


def _response_format(wanted: OutputFormat) -> dict[str, Any]:
    if wanted.schema is None:
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": wanted.name, "schema": wanted.schema}
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": schema}


def _content(item: Message, index: int) -> str | list[dict[str, Any]]:
    if all(isinstance(part, TextPart) for part in item.content):
        return item.text
    return [_part(part, f"input[{index}].content[{n}]") for n, part in enumerate(item.content)]


def _part(part: TextPart | OpaquePart, where: str) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if part.type == "input_image":
        try:
            image = msgspec.json.decode(part.raw, type=_WireImage)
        except msgspec.ValidationError as error:
            raise ApiError(
                f"{where}: only images given by URL (also data URLs) are supported",
                code="unsupported_content",
                param=f"{where}.image_url",
            ) from error
        url = {"url": image.image_url}
        return {
            "type": "image_url",
            "image_url": url | ({"detail": image.detail} if image.detail else {}),
        }
    raise _unsupported(part, where)


def _unsupported(part: OpaquePart, where: str) -> ApiError:
    return ApiError(
        f"{where} is of type {part.type!r}, which this model's server cannot take",
        code="unsupported_content",
        param=f"{where}.type",
    )


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
