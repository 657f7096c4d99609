"""One chunk of a Chat Completions stream, in the shapes in which hosts send it.

Hosts differ. A chunk of the usual shape is taken by ``msgspec.convert(chunk, Chunk)``; one that it
refuses goes to ``read_odd_chunk``, so that the usual shape costs nothing more. What has a sensible
reading gets it; figures and reasoning that have none are left out. What may be part of the answer
and cannot be read is a ``RemoteProtocolError``: an answer with a hole looks like a whole one.
"""

from typing import Any, Final

from msgspec import Struct

from tightloop.protocol.deltas import Usage
from tightloop.protocol.errors import ApiError, RemoteProtocolError, api_error_from_wire

Figure = int | float | None
"""A count as hosts write it."""


class Function(Struct):
    """The function's part of a tool call. Complete arguments may come as an object."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class ToolCall(Struct):
    """A piece of a tool call."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class ChoiceDelta(Struct):
    """What a chunk adds to the message."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(Struct):
    """What a chunk says of one answer. ``error`` is OpenRouter's."""

    index: int | None = None
    delta: ChoiceDelta | None = None
    finish_reason: str | None = None
    error: Any = None


class PromptDetails(Struct):
    """Of the input tokens. ``cache_read_tokens`` is a gateway's name for the same."""

    cached_tokens: Figure = None
    cache_read_tokens: Figure = None


class CompletionDetails(Struct):
    """Of the output tokens."""

    reasoning_tokens: Figure = None
    accepted_prediction_tokens: Figure = None
    rejected_prediction_tokens: Figure = None


class WireUsage(Struct):
    """The figures as they came; ``read_usage`` makes sense of them.

    The cached part of the input is ``prompt_tokens_details.cached_tokens`` at OpenAI, Cerebras, Groq,
    xAI and vLLM, ``prompt_cache_hit_tokens`` at DeepSeek, ``cached_tokens`` at Moonshot and Together,
    ``cache_read_input_tokens`` where the figures are Anthropic's, whose ``input_tokens`` leave it out.
    """

    prompt_tokens: Figure = None
    completion_tokens: Figure = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    prompt_cache_hit_tokens: Figure = None
    cached_tokens: Figure = None
    cache_read_input_tokens: Figure = None
    cache_creation_input_tokens: Figure = None
    input_tokens: Figure = None
    output_tokens: Figure = None


class Chunk(Struct):
    """One chunk. ``time_info`` and ``x_groq`` are figures of Cerebras and Groq."""

    choices: list[Choice] | None = None
    usage: WireUsage | None = None
    error: Any = None
    time_info: Any = None
    x_groq: Any = None

    @property
    def is_usual(self) -> bool:
        """Whether it adds to the answer and says nothing else: nearly every chunk does."""
        return bool(self.choices) and (
            self.usage is None
            and self.error is None
            and self.time_info is None
            and self.x_groq is None
        )


_MAX_FIGURE: Final = 2**53
"""No count of tokens is larger, and up to here every JSON reader is exact."""

_NO_USAGE: Final = Usage()


def read_usage(wire: WireUsage) -> Usage | None:
    """The figures; None when there are none, as in the usage some hosts send with each chunk."""
    completion = wire.completion_tokens_details or CompletionDetails()
    cached = _cached(wire)
    num_input = _count(wire.prompt_tokens)
    if wire.prompt_tokens is None and wire.input_tokens is not None:
        # Anthropic's own figures: what was read from or written to the cache is counted beside.
        num_input = _count(wire.input_tokens) + cached + _count(wire.cache_creation_input_tokens)
    usage = Usage(
        input_tokens=num_input,
        cached_tokens=min(num_input, cached),
        output_tokens=_count(wire.completion_tokens) or _count(wire.output_tokens),
        reasoning_tokens=_count(completion.reasoning_tokens),
        accepted_prediction_tokens=_count(completion.accepted_prediction_tokens),
        rejected_prediction_tokens=_count(completion.rejected_prediction_tokens),
    )
    return usage if usage != _NO_USAGE else None


def _cached(wire: WireUsage) -> int:
    """The cached input tokens, wherever the host writes them."""
    details = wire.prompt_tokens_details or PromptDetails()
    for figure in (
        details.cached_tokens,
        details.cache_read_tokens,
        wire.prompt_cache_hit_tokens,
        wire.cached_tokens,
        wire.cache_read_input_tokens,
    ):
        if count := _count(figure):
            return count
    return 0


def usage_beside(chunk: dict[str, Any]) -> Usage | None:
    """The usage that Groq puts into ``x_groq`` of its last chunk; None where there is none."""
    inner = chunk.get("x_groq")
    wire = _read_odd_usage(inner.get("usage")) if isinstance(inner, dict) else None
    return read_usage(wire) if wire is not None else None


def _count(figure: Figure) -> int:
    """A whole number of tokens; 0 for what cannot be one (negative, endless, not a number)."""
    return int(figure) if figure is not None and 0 <= figure < _MAX_FIGURE else 0


# ---------------------------------------------------------------------- what a host complains of


def host_error(payload: object, *, status: int) -> ApiError:
    """What a host says went wrong, from any of the shapes in use. Never raises.

    ``payload`` is decoded JSON, or text: ``{"error": {...}}``, ``{"error": "text"}``,
    ``{"detail": ...}`` and ``{"message": ...}`` (FastAPI, vLLM), a list of these (Gemini).
    """
    known = api_error_from_wire(payload, status=status)
    return ApiError(
        complaint(payload) or known.message,
        status=status,
        error_type=known.error_type,
        code=known.code or None,
        param=known.param,
    )


_COMPLAINT_KEYS: Final = ("error", "message", "detail", "details", "msg", "errors")


def complaint(value: object, depth: int = 4) -> str | None:
    """The sentence in an error of any shape, or None."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, dict) and depth:
        places = (value.get(key) for key in _COMPLAINT_KEYS)
        return next((said for place in places if (said := complaint(place, depth - 1))), None)
    if isinstance(value, list) and depth:
        found = (complaint(part, depth - 1) for part in value[:8])
        return "; ".join(said for said in found if said) or None
    return None


# ---------------------------------------------------------------------- chunks of another shape


def read_odd_chunk(chunk: dict[str, Any]) -> Chunk:
    """A chunk that msgspec did not take, read field by field."""
    usage = _read_odd_usage(chunk.get("usage"))
    error = chunk.get("error")
    if error:  # the message must come through, whatever stands beside it
        return Chunk(None, usage, error)
    choices = [_read_odd_choice(choice) for choice in _objects(chunk.get("choices"), "choices")]
    return Chunk(choices, usage, error)


def _read_odd_choice(choice: dict[str, Any]) -> Choice:
    error, reason = choice.get("error"), choice.get("finish_reason")
    if isinstance(reason, dict):  # SGLang's own form, {"type": "abort", "message": ...}
        if complaint(reason):
            error = error or reason
        reason = reason.get("type")
    return Choice(
        _whole_number(choice.get("index")),
        None if error else _read_odd_delta(choice.get("delta")),
        reason if isinstance(reason, str) else None,
        error,
    )


def _read_odd_delta(delta: object) -> ChoiceDelta | None:
    if delta is None:
        return None
    if not isinstance(delta, dict):
        raise _unreadable("delta", delta)
    text, thoughts = _read_parts(delta.get("content"))
    for key in ("reasoning_content", "reasoning"):
        value = delta.get(key)
        # It is for show: in a shape that nobody knows it is left out.
        if not thoughts and isinstance(value, str):
            thoughts = value
    calls = delta.get("tool_calls")
    pieces = _objects([calls] if isinstance(calls, dict) else calls, "tool_calls")
    refusal = delta.get("refusal")
    return ChoiceDelta(
        content=text,
        reasoning=thoughts,
        refusal=refusal if isinstance(refusal, str) else None,
        tool_calls=[_read_odd_call(piece) for piece in pieces],
    )


def _read_parts(content: object, depth: int = 4) -> tuple[str, str]:
    """Text and reasoning of a message's content: text, one part, or a list of parts."""
    if content is None or isinstance(content, str):
        return content or "", ""
    if isinstance(content, list) and depth:
        read = [_read_parts(part, depth - 1) for part in content]
        return "".join(text for text, _ in read), "".join(thoughts for _, thoughts in read)
    if not isinstance(content, dict) or not depth:
        raise _unreadable("content", content)
    if "thinking" in content:  # Mistral's
        thinking = content["thinking"]
        return "", "".join(_read_parts(thinking, depth - 1))
    text = content.get("text")
    return (text if isinstance(text, str) else ""), ""


def _read_odd_call(call: dict[str, Any]) -> ToolCall:
    function = call.get("function")
    if function is not None and not isinstance(function, dict):
        raise _unreadable("a tool call's function", function)
    name, arguments = (function or {}).get("name"), (function or {}).get("arguments")
    if not isinstance(arguments, str | dict | None):
        raise _unreadable("a tool call's arguments", arguments)
    call_id = call.get("id")
    if not isinstance(call_id, str) and (number := _whole_number(call_id)) is not None:
        call_id = str(number)
    return ToolCall(
        _whole_number(call.get("index")),
        call_id if isinstance(call_id, str) else None,
        Function(name if isinstance(name, str) else None, arguments),
    )


_USAGE_FIGURES: Final = tuple(
    name for name in WireUsage.__struct_fields__ if not name.endswith("_details")
)


def _read_odd_usage(usage: object) -> WireUsage | None:
    """Figures only inform: what is none is left out."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = (
        details if isinstance(details := usage.get(key), dict) else {}
        for key in ("prompt_tokens_details", "completion_tokens_details")
    )
    figures = {name: _figure(usage.get(name)) for name in _USAGE_FIGURES}
    cached, read = (_figure(prompt.get(key)) for key in ("cached_tokens", "cache_read_tokens"))
    return WireUsage(
        prompt_tokens_details=PromptDetails(cached, read),
        completion_tokens_details=CompletionDetails(
            *(_figure(completion.get(name)) for name in CompletionDetails.__struct_fields__)
        ),
        **figures,
    )


def _figure(value: object) -> Figure:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole_number(value: object) -> int | None:
    """An index; None for what is none."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        return int(value)
    figure = _figure(value)
    return int(figure) if figure is not None and 0 <= figure < _MAX_FIGURE else None


def _objects(value: object, name: str) -> list[dict[str, Any]]:
    """The objects of a list; nulls are left out."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise _unreadable(name, value)
    for one in value:
        if one is not None and not isinstance(one, dict):
            raise _unreadable(f"one of {name}", one)
    return [one for one in value if one is not None]


def _unreadable(what: str, value: object) -> RemoteProtocolError:
    return RemoteProtocolError(f"not a chat completion chunk: {what} is a {type(value).__name__}")
