"""Requests of the Anthropic Messages API, as the ``ResponseRequest`` that asks for the same.

Fields that mean nothing here (``cache_control``, ``metadata``, ``top_k``, ``context_management``, ...)
are ignored, whatever they hold.
Source: Messages API reference, 2026; what Claude Code sends was read from its requests.
"""

from collections import OrderedDict
from contextlib import suppress
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from tightloop.protocol.errors import ApiError, from_validation_error
from tightloop.protocol.items import Item
from tightloop.protocol.messages_blocks import decode_messages
from tightloop.protocol.output_format import OutputFormat, decode_output_format
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.resent import Resent, Shortened
from tightloop.protocol.surrogates import has_surrogate_escape, replace_lone_surrogates
from tightloop.protocol.tools import FunctionTool, OpaqueTool, Tool, ToolChoice

MAX_SESSION_CHARS: Final = 64
"""A prompt cache key is at most as long."""

STANDARD_ONLY: Final = "standard_only"
"""The one word of ``service_tier`` that asks for something: not the fast and dear capacity. The Responses
API calls it ``default``; ``auto``, the other word, leaves it open."""

NUM_TOOL_LISTS: Final = 16
"""Decoded lists of tools kept: an agent and its helpers have one each, about 64 kB of JSON."""

MAX_TOOL_LIST_BYTES: Final = 1 << 20
"""Longer lists are decoded each time: what is kept must not grow with what strangers send."""

BILLING_HEADER: Final = "x-anthropic-billing-header:"
"""Start of a system block that is no prompt. It differs in every request, so it would spoil every
warm prefix. Source: ggml-org/llama.cpp pull request 20623; anthropics/claude-code issue 68900."""


class MessagesRequest(Struct, frozen=True):
    """``asked`` is the request; ``shows_thinking`` is whether the answer may hold thinking blocks."""

    asked: ResponseRequest
    shows_thinking: bool = False


class _SystemBlock(Struct):
    type: str
    text: str = ""


class _ToolChoice(Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Thinking(Struct):
    type: str = ""
    display: str | None = None


class _WireRequest(Struct):
    model: str
    messages: Raw
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    system: str | list[_SystemBlock] | None = None
    tools: Raw = Raw(b"[]")
    tool_choice: _ToolChoice | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    thinking: _Thinking | None = None
    output_config: dict[str, Any] | None = None
    service_tier: Any = None


class _WireTool(Struct):
    name: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class _Peek(Struct):
    type: str | None = None


_wire_request: Final = msgspec.json.Decoder(_WireRequest)
_raws: Final = msgspec.json.Decoder(list[Raw] | None)
_wire_tool: Final = msgspec.json.Decoder(_WireTool)
_peek: Final = msgspec.json.Decoder(_Peek)


class MessagesDecoder:
    """Decodes the requests of one server. Keeps the latest lists of tools, which never change."""

    def __init__(self) -> None:
        self._tool_lists: OrderedDict[bytes, tuple[Tool, ...]] = OrderedDict()
        self._resent = Resent("messages")

    def decode(
        self,
        body: bytes | str,
        *,
        session: str | None = None,
        is_count: bool = False,
        scope: str = "",
    ) -> MessagesRequest:
        """The request in a body; ``session`` names the client's session, for cache affinity.

        ``is_count``: a body of ``count_tokens``, which needs no ``max_tokens``. ``scope`` is the client,
        whose own earlier bodies this one is compared with. Raises ``ApiError``
        400 with a ``param`` like ``messages[3].content[0].tool_use_id``.
        """
        short = self._resent.shorten(body, scope) if isinstance(body, bytes) else None
        if short is not None:
            with suppress(ApiError):  # the whole body says what is wrong
                return self._decode(body, session, is_count, scope, short)
        try:
            return self._decode(body, session, is_count, scope)
        except ApiError as error:
            if error.code != "invalid_json" or not has_surrogate_escape(body):
                raise
        return self._decode(replace_lone_surrogates(body), session, is_count)

    def _decode(
        self,
        body: bytes | str,
        session: str | None,
        is_count: bool,
        scope: str = "",
        short: Shortened | None = None,
    ) -> MessagesRequest:
        wire = _decode_wire(body if short is None else short.text)
        if wire.max_tokens is None and not is_count:
            raise _bad(
                "missing required field max_tokens", "max_tokens", "missing_required_parameter"
            )
        items = self._items(wire.messages, body, scope, short)
        if not items:
            raise _bad("messages holds no message", "messages")
        tools = self._decode_tools(wire.tools)
        config = wire.output_config or {}
        asked = ResponseRequest(
            model=wire.model,
            input=items,
            instructions=_instructions(wire.system),
            tools=tools,
            tool_choice=_tool_choice(wire.tool_choice, tools),
            parallel_tool_calls=_allows_parallel(wire.tool_choice),
            stream=bool(wire.stream),
            store=False,
            temperature=wire.temperature,
            top_p=wire.top_p,
            max_output_tokens=wire.max_tokens or None,
            generate=wire.max_tokens != 0,
            prompt_cache_key=session[:MAX_SESSION_CHARS] if session else None,
            output_format=_output_format(config),
            reasoning_effort=_effort(config, wire.thinking),
            stop=tuple([text for text in wire.stop_sequences or () if text]),
            service_tier="default" if wire.service_tier == STANDARD_ONLY else None,
        )
        return MessagesRequest(asked, _shows_thinking(wire.thinking))

    def _items(
        self, raw: Raw, body: bytes | str, scope: str, short: Shortened | None
    ) -> tuple[Item, ...]:
        if short is None:
            blocks = decode_messages(raw)
            ends = blocks.ends
        else:
            rest = self._resent.rest(raw)
            if rest is None:
                raise ApiError("the messages are not where they seemed to be")
            blocks = decode_messages(rest, short.items, short.num_elements)
            ends = [*short.ends, *blocks.ends]
        if isinstance(body, bytes):
            self._resent.keep(body, blocks.items, ends, scope, short)
        return blocks.items

    def _decode_tools(self, raw: Raw) -> tuple[Tool, ...]:
        key = bytes(raw)
        known = self._tool_lists.get(key)
        if known is None:
            known = _tools(key)
            if len(key) <= MAX_TOOL_LIST_BYTES:
                self._tool_lists[key] = known
            if len(self._tool_lists) > NUM_TOOL_LISTS:
                self._tool_lists.popitem(last=False)
        else:
            self._tool_lists.move_to_end(key)
        return known


def _decode_wire(body: bytes | str) -> _WireRequest:
    # What stays Raw is not checked to be UTF-8 here but where it is read: a check of the whole
    # body takes twice as long as all the rest.
    try:
        return _wire_request.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise from_validation_error(error) from error


def _instructions(system: str | list[_SystemBlock] | None) -> str | None:
    if not isinstance(system, list):
        return system or None
    texts = [block.text for block in system if not block.text.startswith(BILLING_HEADER)]
    return "\n\n".join(text for text in texts if text) or None


def _output_format(config: dict[str, Any]) -> OutputFormat | None:
    given = config.get("format")
    if not isinstance(given, dict):
        return None
    return decode_output_format({"name": "answer", **given}, "output_config.format")


def _effort(config: dict[str, Any], thinking: _Thinking | None) -> str | None:
    if thinking is not None and thinking.type == "disabled":
        return "none"
    effort = config.get("effort")
    return effort if isinstance(effort, str) else None


def _shows_thinking(thinking: _Thinking | None) -> bool:
    if thinking is None or thinking.display == "omitted":
        return False
    return thinking.type in ("enabled", "adaptive")


def _tools(raw: bytes) -> tuple[Tool, ...]:
    place = "tools"
    try:
        raws = _raws.decode(raw) or []
        tools: list[Tool] = []
        for n, entry in enumerate(raws):
            place = f"tools[{n}]"
            tools.append(_tool(entry, place))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise from_validation_error(error, place) from error
    return tuple(tools)


def _tool(raw: Raw, place: str) -> Tool:
    kind = _peek.decode(raw).type
    if kind not in (None, "custom"):
        str(raw, "utf-8")
        return OpaqueTool(kind, raw.copy())  # run by Anthropic's servers, so it is not for us
    wire = _wire_tool.decode(raw)
    if not wire.name:
        raise _bad(f"{place}.name is empty", f"{place}.name")
    return FunctionTool(wire.name, wire.description or "", wire.input_schema, wire.strict)


def _tool_choice(choice: _ToolChoice | None, tools: tuple[Tool, ...]) -> ToolChoice:
    if choice is None or choice.type == "auto":
        return "auto"
    if choice.type == "none":
        return "none"
    if choice.type == "any":
        return "required"
    if choice.type != "tool":
        known = "auto, any, tool or none"
        raise _bad(
            f"tool_choice.type must be {known}, got {choice.type[:100]!r}", "tool_choice.type"
        )
    names = {tool.name for tool in tools if isinstance(tool, FunctionTool)}
    if choice.name not in names:
        raise _bad(
            f"tool_choice.name is {str(choice.name)[:100]!r}, which is not among tools",
            "tool_choice.name",
        )
    return choice.name or ""


def _allows_parallel(choice: _ToolChoice | None) -> bool:
    return choice is None or not choice.disable_parallel_tool_use


def _bad(message: str, param: str, code: str = "invalid_value") -> ApiError:
    return ApiError(message, code=code, param=param)
