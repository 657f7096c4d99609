"""Chat Completions requests, decoded into the same ``ResponseRequest`` as every other dialect.

What this server cannot do and a client would rely on is refused with its name (``n``, ``logprobs``,
audio, ``functions``). What only says who asks or how to charge (``user``, ``metadata``, ``store``),
penalties, and every unknown field have no effect.
"""

from contextlib import suppress
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from tightloop.protocol.chat_history import History, WireMessage, explain, history_items
from tightloop.protocol.chat_tools import apply_chat_choice, decode_chat_tools
from tightloop.protocol.errors import ApiError, from_validation_error
from tightloop.protocol.output_format import decode_output_format
from tightloop.protocol.prediction import decode_prediction
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.resent import Resent, Shortened
from tightloop.protocol.surrogates import has_surrogate_escape, replace_lone_surrogates
from tightloop.protocol.tools import Tool

MAX_STOPS: Final = 4
"""Source: API reference of Chat Completions, ``stop``."""

NUM_TOOLS_KEPT: Final = 16
MAX_TOOLS_KEPT_BYTES: Final = 1 << 20
"""Of one list; what is larger is decoded each time."""


class ChatRequest(Struct, frozen=True):
    """A request, and the one thing that only concerns how a stream of this dialect is written."""

    request: ResponseRequest
    include_usage: bool = False


class _StreamOptions(Struct):
    include_usage: bool | None = None


_Tokens = Annotated[int, Meta(ge=1)]


class _WireChat(Struct):
    model: str
    messages: list[WireMessage]
    tools: Raw = Raw(b"null")
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: Any = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    reasoning_effort: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    logprobs: bool | None = None
    modalities: list[str] | None = None
    functions: Any = None
    prediction: Any = None


class _RawMessages(Struct):
    messages: list[Raw]


_wire_chat: Final = msgspec.json.Decoder(_WireChat)
_raw_messages: Final = msgspec.json.Decoder(_RawMessages)


class ChatDecoder:
    """Decodes the requests of one server.

    An agent repeats tens of kilobytes of tools with every request, so the latest lists are kept
    and reused while their bytes are the same: agents at work side by side have one each.
    """

    def __init__(self) -> None:
        self._tools: dict[bytes, tuple[Tool, ...]] = {}  # the latest last
        self._resent = Resent("messages")

    def decode(self, body: bytes, scope: str = "") -> ChatRequest:
        """The checked request. Raises ``ApiError`` 400, code ``invalid_json`` for bad JSON.

        ``scope`` is the client, whose own earlier bodies this one is compared with.
        """
        short = self._resent.shorten(body, scope)
        if short is not None:
            with suppress(ApiError):  # the whole body says what is wrong
                return self._decode(body, scope, short)
        try:
            return self._decode(body, scope)
        except ApiError as error:
            if error.code != "invalid_json" or not has_surrogate_escape(body):
                raise
        return self._decode(replace_lone_surrogates(body).encode(), scope)

    def _decode(self, body: bytes, scope: str = "", short: Shortened | None = None) -> ChatRequest:
        wire = _decode_wire(body if short is None else short.text)
        _refuse(wire)
        history = self._history(wire, short)
        if history.can_go_on:
            ends = history.ends if short is None else [*short.ends, *history.ends]
            self._resent.keep(body, history.items, ends, scope, short)
        tools, tool_choice = apply_chat_choice(wire.tool_choice, self._decode_tools(wire.tools))
        options = wire.stream_options
        request = ResponseRequest(
            model=wire.model,
            input=history.items,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=wire.parallel_tool_calls is not False,
            stream=bool(wire.stream),
            store=False,  # the client keeps the conversation itself
            temperature=wire.temperature,
            top_p=wire.top_p,
            seed=wire.seed,
            max_output_tokens=wire.max_completion_tokens or wire.max_tokens,
            prompt_cache_key=wire.prompt_cache_key,
            service_tier=wire.service_tier,
            output_format=decode_output_format(wire.response_format, "response_format"),
            reasoning_effort=wire.reasoning_effort,
            stop=_stops(wire.stop),
            prediction=decode_prediction(wire.prediction),
        )
        return ChatRequest(request, bool(options is not None and options.include_usage))

    def _history(self, wire: _WireChat, short: Shortened | None) -> History:
        if short is None:
            return history_items(wire.messages)
        if wire.messages[0].role != self._resent.role:
            raise ApiError("the messages are not where they seemed to be")
        return history_items(wire.messages[1:], short.items, short.num_elements)

    def _decode_tools(self, raw: Raw) -> tuple[Tool, ...]:
        seen = bytes(raw)
        tools = self._tools.pop(seen, None)
        if tools is None:
            tools = decode_chat_tools(seen)
        if tools and len(seen) <= MAX_TOOLS_KEPT_BYTES:
            self._tools[seen] = tools
            if len(self._tools) > NUM_TOOLS_KEPT:
                del self._tools[next(iter(self._tools))]
        return tools


def _decode_wire(body: bytes) -> _WireChat:
    try:
        return _wire_chat.decode(body)
    except msgspec.ValidationError as error:
        if "$.messages[" in str(error):
            _explain(body)
        raise from_validation_error(error) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise from_validation_error(error) from error


def _explain(body: bytes) -> None:
    """Raise the ``ApiError`` of the message at fault, if it can be found."""
    try:
        explain(_raw_messages.decode(body).messages)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise from_validation_error(error) from error


def _refuse(wire: _WireChat) -> None:
    """Raise ``ApiError`` for what a client would rely on in vain."""
    if not wire.messages:
        raise ApiError(
            "messages is empty; give at least one message", code="invalid_value", param="messages"
        )
    if wire.n not in (None, 1):
        raise _unsupported("n", f"n must be 1, got {wire.n}: one request makes one answer here")
    if wire.logprobs:
        raise _unsupported("logprobs", "logprobs must be false: no log probabilities are kept here")
    if wire.functions:
        raise _unsupported(
            "functions", "functions is the old form and not supported; give the same as tools"
        )
    other = next((kind for kind in wire.modalities or () if kind != "text"), None)
    if other is not None:
        raise _unsupported("modalities", f"modalities may only hold text, got {other[:100]!r}")


def _unsupported(param: str, message: str) -> ApiError:
    return ApiError(message, code="unsupported_parameter", param=param)


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > MAX_STOPS:
        raise ApiError(
            f"stop has {len(stops)} sequences, at most {MAX_STOPS} are allowed",
            code="invalid_value",
            param="stop",
        )
    if "" in stops:
        raise ApiError(
            "stop holds an empty string, which would end every answer before it began",
            code="invalid_value",
            param="stop",
        )
    return stops
