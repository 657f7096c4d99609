"""Requests of the Responses API, as typed values.

Unknown fields, tool types and item types are kept or ignored, never rejected; fields that this
package acts on are checked, and a bad one raises ``ApiError`` naming it in ``param``.
"""

import re
from contextlib import suppress
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from tightloop.protocol.errors import ApiError, from_validation_error
from tightloop.protocol.items import Item, decode_input
from tightloop.protocol.output_format import OutputFormat, decode_output_format
from tightloop.protocol.prediction import decode_prediction
from tightloop.protocol.resent import Resent, Shortened
from tightloop.protocol.surrogates import has_surrogate_escape, replace_lone_surrogates
from tightloop.protocol.tools import (
    CustomTool,
    DecodedTools,
    FunctionTool,
    OpaqueTool,
    Tool,
    ToolChoice,
    decode_tools,
    tool_key,
)

__all__ = [
    "CustomTool",
    "FunctionTool",
    "OpaqueTool",
    "RequestDecoder",
    "ResponseRequest",
    "Tool",
    "ToolChoice",
    "decode_request",
]

STREAM_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,256}")
"""A lane's name, matched in full. Source: WebSocket mode guide of the Responses API."""

TIMING_KEY: Final = "tightloop.timing"
"""Key of ``client_metadata``; the value ``"1"`` asks for the timing event."""


NUM_TOOLS_KEPT: Final = 16
MAX_TOOLS_KEPT_BYTES: Final = 1 << 20
"""Longer lists of tools are decoded each time: an idle connection must not hold them."""


class ResponseRequest(Struct, frozen=True):
    """``POST /v1/responses`` or a ``response.create`` event, decoded and checked.

    ``echo`` holds what the Response object must echo, complete and ready for
    ``response.ResponseEcho``; ``tools`` in it are JSON bytes (``Raw``). ``tools`` here are only
    those the model may use: ``allowed_tools`` has been applied, namespaces are flattened.
    ``stream_id`` names a lane, WebSocket only. ``generate`` False asks for a prewarm.
    ``compact_threshold`` is the number of context tokens from which on the server sums up the
    conversation first. ``compared_with`` names the response whose prompt cache
    ``prompt_cache_diagnostics`` is about; empty means the parent, None that nobody asked.
    """

    model: str
    input: tuple[Item, ...]
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    stream: bool = False
    store: bool = True
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    max_output_tokens: int | None = None
    generate: bool = True
    stream_id: str | None = None
    wants_timing: bool = False
    echo: dict[str, Any] = msgspec.field(default_factory=dict)
    max_tool_calls: int | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    background: bool = False
    conversation: str | None = None
    output_format: OutputFormat | None = None
    reasoning_effort: str | None = None
    stop: tuple[str, ...] = ()
    compact_threshold: int | None = None
    compared_with: str | None = None
    truncates: bool = False
    """``truncation: auto``: on overflow drop the oldest items instead of failing."""
    service_tier: str | None = None
    prediction: str | None = None
    """Text that the answer probably repeats (``prediction`` of Chat Completions, here ours)."""


class _ContextManagement(Struct):
    type: str
    compact_threshold: Annotated[int, Meta(ge=1)] | None = None


class _WireRequest(Struct):
    model: str
    type: Raw = Raw()  # of the event that is a request; looked at by ``decode_event`` alone
    input: Raw = Raw(b"[]")
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: Raw = Raw(b"[]")
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    store: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=16)] | None = None
    max_tool_calls: Annotated[int, Meta(ge=1)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None
    prompt_cache_key: Annotated[str, Meta(max_length=64)] | None = None
    safety_identifier: Annotated[str, Meta(max_length=64)] | None = None
    service_tier: str | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    generate: bool | None = None
    stream_id: Any = None
    client_metadata: Any = None
    prompt_cache_options: dict[str, Any] | None = None
    background: bool | None = None
    conversation: str | dict[str, Any] | None = None
    context_management: list[_ContextManagement] | None = None
    prediction: Any = None


_wire_request: Final = msgspec.json.Decoder(_WireRequest)


def decode_request(body: bytes | str, *, websocket: bool = False) -> ResponseRequest:
    """One request. Raises ``ApiError`` 400; ``RequestDecoder`` is cheaper for a connection."""
    return RequestDecoder(websocket=websocket).decode(body)


class RequestDecoder:
    """Decodes the requests of one connection.

    Clients repeat tens of kilobytes of tools with every request, so the last tools are kept and
    reused while their bytes are the same. ``resends``: they repeat their items, too, and what an
    earlier body held already is not decoded again.
    """

    def __init__(self, *, websocket: bool = False, resends: bool = False) -> None:
        self._websocket = websocket
        self._tools_raw = b"[]"
        self._tools = DecodedTools()
        self._other_tools: dict[bytes, DecodedTools] = {}  # the latest last
        self._resent = Resent("input") if resends else None

    def decode(self, body: bytes | str, scope: str = "") -> ResponseRequest:
        """The checked request. Raises ``ApiError`` 400, code ``invalid_json`` for bad JSON.

        ``scope`` is the client, whose own earlier bodies this one is compared with.
        """
        if self._resent is not None and isinstance(body, bytes):
            short = self._resent.shorten(body, scope)
            if short is not None:
                with suppress(ApiError):  # the whole body says what is wrong
                    return self._decode_short(self._resent, body, scope, short)
        try:
            return self._decode(body, scope)
        except ApiError as error:
            if error.code != "invalid_json" or not has_surrogate_escape(body):
                raise
        return self._decode(replace_lone_surrogates(body))

    def decode_event(self, body: bytes, kind: Raw) -> ResponseRequest | None:
        """The checked request of an event whose ``type``, in JSON, is ``kind``; else None.

        Raises as ``decode``, which can read some requests that this cannot: try it then.
        """
        wire = _decode_wire(body)
        return self._request(wire) if wire.type == kind else None

    def _decode(self, body: bytes | str, scope: str = "") -> ResponseRequest:
        wire = _decode_wire(body)
        request = self._request(wire)
        if self._resent is not None and isinstance(body, bytes):
            items = request.input
            self._resent.keep(body, items, range(1, len(items) + 1), scope)
        return request

    def _decode_short(
        self, resent: Resent, body: bytes, scope: str, short: Shortened
    ) -> ResponseRequest:
        wire = _decode_wire(short.text)
        rest = resent.rest(wire.input)
        if rest is None:
            raise ApiError("the input is not where it seemed to be")
        wire.input = Raw(rest)
        request = self._request(wire)
        items = short.items + request.input
        resent.keep(body, items, range(1, len(items) + 1), scope, short)
        return msgspec.structs.replace(request, input=items)

    def _request(self, wire: _WireRequest) -> ResponseRequest:
        if self._websocket:
            wire.background = None  # some clients send it by mistake; a socket is no background
        decoded = self._decode_tools(wire.tools)
        tools, tool_choice = _apply_choice(wire.tool_choice, decoded.tools)
        return ResponseRequest(
            model=wire.model,
            input=() if bytes(memoryview(wire.input)[:4]) == b"null" else decode_input(wire.input),
            instructions=wire.instructions,
            previous_response_id=wire.previous_response_id,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=wire.parallel_tool_calls is not False,
            stream=self._websocket or bool(wire.stream),
            store=wire.store is not False,
            temperature=wire.temperature,
            top_p=wire.top_p,
            seed=wire.seed,
            max_output_tokens=wire.max_output_tokens,
            generate=wire.generate is not False and not _asks_prewarm(wire.prompt_cache_options),
            stream_id=_stream_id(wire.stream_id) if self._websocket else None,
            wants_timing=_wants_timing(wire.client_metadata),
            echo=_echo(wire, decoded.echo),
            max_tool_calls=wire.max_tool_calls,
            prompt_cache_key=wire.prompt_cache_key,
            metadata=wire.metadata or {},
            background=bool(wire.background),
            conversation=_conversation(wire),
            output_format=decode_output_format((wire.text or {}).get("format")),
            reasoning_effort=_effort(wire.reasoning),
            compact_threshold=_compact_threshold(wire.context_management),
            compared_with=_compared_with(wire.prompt_cache_options),
            truncates=wire.truncation == "auto",
            service_tier=wire.service_tier,
            prediction=decode_prediction(wire.prediction),
        )

    def _decode_tools(self, raw: Raw) -> DecodedTools:
        seen = bytes(raw)
        if seen == b"null":
            return DecodedTools()
        if seen == self._tools_raw:
            return self._tools
        decoded = self._other_tools.pop(seen, None) or decode_tools(seen)
        if len(seen) <= MAX_TOOLS_KEPT_BYTES:
            if self._resent is not None:
                self._keep_other(self._tools_raw, self._tools)
            self._tools, self._tools_raw = decoded, seen
        return decoded

    def _keep_other(self, raw: bytes, tools: DecodedTools) -> None:
        """Agents that take turns at one server have their own tools each."""
        self._other_tools[raw] = tools
        if len(self._other_tools) >= NUM_TOOLS_KEPT:
            del self._other_tools[next(iter(self._other_tools))]


def _decode_wire(body: bytes | str) -> _WireRequest:
    try:
        if isinstance(body, bytes) and not body.isascii():
            str(body, "utf-8")  # bytes kept as Raw are not checked by the decoder
        return _wire_request.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise from_validation_error(error) from error


def _stream_id(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not STREAM_ID.fullmatch(value):
        raise ApiError(
            f"stream_id must match ^{STREAM_ID.pattern}$, got {str(value)[:300]!r}",
            code="invalid_stream_id",
            param="stream_id",
        )
    return value


def _wants_timing(client_metadata: Any) -> bool:
    return isinstance(client_metadata, dict) and client_metadata.get(TIMING_KEY) == "1"


def _asks_prewarm(options: dict[str, Any] | None) -> bool:
    return options is not None and options.get("prewarm") is True


def _compared_with(options: dict[str, Any] | None) -> str | None:
    if options is None:
        return None
    given = options.get("comparison_response_id")
    return given if isinstance(given, str) else ""


def _conversation(wire: _WireRequest) -> str | None:
    given = wire.conversation
    name = given.get("id") if isinstance(given, dict) else given
    if name is None and given is None:
        return None
    if not isinstance(name, str) or not name:
        raise ApiError(
            "conversation must be an id or an object with an id",
            code="invalid_value",
            param="conversation",
        )
    if wire.previous_response_id is not None:
        raise ApiError(
            "give either conversation or previous_response_id, not both",
            code="invalid_value",
            param="conversation",
        )
    return name


def _effort(reasoning: dict[str, Any] | None) -> str | None:
    effort = (reasoning or {}).get("effort")
    return effort if isinstance(effort, str) else None


def _compact_threshold(entries: list[_ContextManagement] | None) -> int | None:
    given = (entry.compact_threshold for entry in entries or () if entry.type == "compaction")
    return next((threshold for threshold in given if threshold is not None), None)


# ---------------------------------------------------------------------- tool choice


def _apply_choice(
    choice: str | dict[str, Any] | None, tools: tuple[Tool, ...]
) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The tools that may be used, and how. Tool types we do not know are left to the model."""
    if choice is None:
        return tools, "auto"
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            raise _bad_choice(f"must be auto, none, required or an object, got {choice[:100]!r}")
        return tools, choice
    kind = choice.get("type")
    if kind in ("function", "custom"):
        return tools, _forced_name(choice, tools)
    if kind == "allowed_tools":
        return _allowed(choice, tools)
    if not isinstance(kind, str):
        raise _bad_choice("needs a type", ".type")
    return tools, "auto"


def _forced_name(choice: dict[str, Any], tools: tuple[Tool, ...]) -> str:
    name = choice.get("name")
    if not isinstance(name, str) or not name:
        raise _bad_choice("needs the name of a tool", ".name")
    if tools and all(tool_key(tool)[1] != name for tool in tools):
        raise _bad_choice(f"names {name[:100]!r}, which is not among tools", ".name")
    return name


def _allowed(
    choice: dict[str, Any], tools: tuple[Tool, ...]
) -> tuple[tuple[Tool, ...], ToolChoice]:
    mode = choice.get("mode", "auto")
    if mode not in ("auto", "required"):
        raise _bad_choice(f"must be auto or required, got {str(mode)[:100]!r}", ".mode")
    entries = choice.get("tools")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _bad_choice("needs a list of tools", ".tools")
    keys = {(str(entry.get("type")), str(entry.get("name") or "")) for entry in entries}
    return tuple(tool for tool in tools if tool_key(tool) in keys), mode


def _bad_choice(reason: str, field: str = "") -> ApiError:
    param = f"tool_choice{field}"
    return ApiError(f"{param} {reason}", code="invalid_value", param=param)


# ---------------------------------------------------------------------- echo


def _echo(wire: _WireRequest, tools: Raw) -> dict[str, Any]:
    """What the Response object repeats of the request, defaults filled in."""
    return {
        "instructions": wire.instructions,
        "model": wire.model,
        "previous_response_id": wire.previous_response_id,
        "tools": tools,
        "tool_choice": "auto" if wire.tool_choice is None else wire.tool_choice,
        "parallel_tool_calls": wire.parallel_tool_calls is not False,
        "text": {"format": {"type": "text"}, **_given(wire.text)},
        "reasoning": {"effort": None, "summary": None, **_given(wire.reasoning)},
        "truncation": wire.truncation or "disabled",
        "temperature": 1.0 if wire.temperature is None else wire.temperature,
        "top_p": 1.0 if wire.top_p is None else wire.top_p,
        "presence_penalty": wire.presence_penalty or 0.0,
        "frequency_penalty": wire.frequency_penalty or 0.0,
        "top_logprobs": wire.top_logprobs or 0,
        "max_output_tokens": wire.max_output_tokens,
        "max_tool_calls": wire.max_tool_calls,
        "store": wire.store is not False,
        "background": bool(wire.background),
        "service_tier": wire.service_tier or "default",
        "metadata": wire.metadata or {},
        "safety_identifier": wire.safety_identifier,
        "prompt_cache_key": wire.prompt_cache_key,
    }


def _given(fields: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None} if fields else {}
