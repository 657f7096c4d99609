"""Renders conversations the way a model was trained to read them.

Model files carry a Jinja template written for Hugging Face's ``apply_chat_template``; here it
runs in Jinja's sandbox with the names such templates expect. Without a template ChatML is used.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tightloop.engine.interface import EngineError
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    Reasoning,
)
from tightloop.protocol.requests import CustomTool, FunctionTool, Tool

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ '' if loop.first else '\n' }}<tool_call>\n"
    '{"name": {{ c.function.name | tojson }}, "arguments": {{ c.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Text in front of the first call ends as the model ended it; calls are a line apart."""

ChatMessage = dict[str, Any]


class _Generation(Extension):
    """``{% generation %}`` marks text for training; here it only passes its body through."""

    tags = {"generation"}  # noqa: RUF012 - declared so by Jinja

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def chat_messages(instructions: str | None, items: Sequence[Item]) -> list[ChatMessage]:
    """Items as chat messages: system text in front, calls on the assistant message they follow."""
    messages: list[ChatMessage] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    names: dict[str, str] = {}
    reasoning = ""
    for item in items:
        if isinstance(item, Reasoning):
            reasoning = "".join(item.content) or "\n".join(item.summary)
            continue
        if isinstance(item, Message):
            role = "system" if item.role == "developer" else item.role
            message: ChatMessage = {"role": role, "content": item.text}
            if role == "assistant" and reasoning:
                message["reasoning_content"], reasoning = reasoning, ""
            _append(messages, message)
        elif isinstance(item, FunctionCall | CustomToolCall):
            names[item.call_id] = item.name
            _append_call(messages, item, reasoning)
            reasoning = ""
        elif isinstance(item, FunctionCallOutput | CustomToolCallOutput):
            messages.append(
                {
                    "role": "tool",
                    "content": item.output,
                    "name": names.get(item.call_id, ""),
                    "tool_call_id": item.call_id,
                }
            )
    return messages


def _append(messages: list[ChatMessage], message: ChatMessage) -> None:
    """Leading system messages become one, because most templates read only the first."""
    is_system = message["role"] == "system"
    if is_system and len(messages) == 1 and messages[0]["role"] == "system":
        messages[0]["content"] += "\n\n" + message["content"]
    else:
        messages.append(message)


def _append_call(
    messages: list[ChatMessage], item: FunctionCall | CustomToolCall, reasoning: str
) -> None:
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
        if reasoning:
            messages[-1]["reasoning_content"] = reasoning
    arguments: Any = {"input": item.input} if isinstance(item, CustomToolCall) else None
    if isinstance(item, FunctionCall):
        try:
            arguments = json.loads(item.arguments)
        except ValueError:
            arguments = item.arguments
    call = {
        "id": item.call_id,
        "type": "function",
        "function": {"name": item.name, "arguments": arguments},
    }
    messages[-1].setdefault("tool_calls", []).append(call)


def chat_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Tools as templates list them; a free-form tool takes its text under ``input``."""
    listed = []
    for tool in tools:
        if isinstance(tool, FunctionTool):
            parameters = tool.parameters or {"type": "object", "properties": {}}
            description = tool.description
        elif isinstance(tool, CustomTool):
            text = {"type": "string", "description": "the tool's input as plain text"}
            parameters = {"type": "object", "properties": {"input": text}, "required": ["input"]}
            description = tool.description
            if tool.grammar:
                form = "Lark grammar" if tool.syntax == "lark" else "regular expression"
                description += f"\nThe input must match this {form}:\n{tool.grammar}"
        else:
            continue
        function = {"name": tool.name, "description": description, "parameters": parameters}
        listed.append({"type": "function", "function": function})
    return listed


def _tool_prompt(tools: Sequence[dict[str, Any]]) -> str:
    """What a model is told of its tools when its template does not do it (Hermes wording's form)."""
    lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    return (
        "# Tools\n\nYou may call these functions:\n<tools>\n" + lines + "\n</tools>\n\n"
        "To call one, write a JSON object with its name and arguments between tags:\n"
        '<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>'
    )


class ChatTemplate:
    """A model's template, compiled once. Raises ``EngineError`` when it is not valid Jinja."""

    def __init__(self, source: str | None, *, bos: str = "", eos: str = "") -> None:
        self.source = source or CHATML
        self._bos, self._eos = bos, eos
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise EngineError(f"the model's chat template cannot be read: {error}") from error
        self._knows_tools = "tools" in self.source
        self.knows_thinking = "think" in self.source

    def render(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[dict[str, Any]],
        *,
        can_think: bool = True,
        is_asking: bool = True,
    ) -> str:
        """The prompt up to where the assistant speaks; without ``is_asking`` the messages only.

        ``can_think`` False tells templates that know ``enable_thinking`` to leave reasoning out.
        A template that refuses later system messages, or does not show them, gets them as user
        messages in their places, so that what came before stays as it was and warm; failing
        that, in front of the first message, or of the first user message. Raises ``EngineError``
        when none is accepted.
        """
        told = list(messages)
        if tools and not self._knows_tools:
            told = _with_system(told, _tool_prompt(tools))
        options: dict[str, Any] = {} if can_think else {"enable_thinking": False}
        later = [m["content"].strip() for m in told[1:] if m["role"] == "system"]
        refusal: Exception | None = None
        incomplete: str | None = None
        forms = (_as_told, _with_later_as_user, _merged, _without_system)
        for form in forms if later else (_as_told, _merged, _without_system):
            try:
                text = self._template.render(
                    messages=form(told),
                    tools=list(tools) if tools and self._knows_tools else None,
                    add_generation_prompt=is_asking,
                    bos_token=self._bos,
                    eos_token=self._eos,
                    **options,
                )
            except (jinja2.TemplateError, TypeError, ValueError, KeyError) as error:
                refusal = refusal or error
                continue
            if all(said in text for said in later):
                return text
            incomplete = incomplete or text
        if incomplete is not None:  # a template that rewrites what it is given
            return incomplete
        raise EngineError(
            f"the model's chat template refuses this conversation: {refusal}",
            code="invalid_request",
        ) from refusal


def _with_system(messages: list[ChatMessage], text: str) -> list[ChatMessage]:
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": messages[0]["content"] + "\n\n" + text}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _split_system(messages: Sequence[ChatMessage]) -> tuple[str, list[ChatMessage]]:
    text = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    return text, [m for m in messages if m["role"] != "system"]


def _as_told(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    return list(messages)


def _with_later_as_user(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    return [
        {**message, "role": "user"} if n and message["role"] == "system" else message
        for n, message in enumerate(messages)
    ]


def _merged(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    text, rest = _split_system(messages)
    return [{"role": "system", "content": text}, *rest] if text else rest


def _without_system(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    text, rest = _split_system(messages)
    for place, message in enumerate(rest):
        if message["role"] == "user":
            rest[place] = {**message, "content": f"{text}\n\n{message['content']}"}
            return rest
    return [{"role": "user", "content": text}, *rest] if text else rest


def _to_json(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
    # Jinja's own filter escapes HTML, which models were not trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().astimezone().strftime(layout)
