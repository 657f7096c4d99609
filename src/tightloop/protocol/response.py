"""The Response object: all 31 keys that strict clients require, in every event that carries one.

What the request fixes (echo, id, creation time) is serialised once per response; a status change
adds only the few keys that can differ.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from tightloop.protocol.deltas import Usage
from tightloop.protocol.requests import ResponseRequest, ToolChoice

STRICT_KEYS: Final = frozenset(
    {
        "id", "object", "created_at", "completed_at", "status", "error", "incomplete_details",
        "instructions", "model", "output", "previous_response_id", "tools", "tool_choice",
        "parallel_tool_calls", "text", "reasoning", "truncation", "temperature", "top_p",
        "presence_penalty", "frequency_penalty", "top_logprobs", "max_output_tokens",
        "max_tool_calls", "store", "background", "service_tier", "metadata",
        "safety_identifier", "prompt_cache_key", "usage",
    }
)  # fmt: skip
"""Keys that must be present. Source: Open Responses specification, 2026-04-24."""

_DEFAULTS: Final[dict[str, Any]] = {
    "text": {"format": {"type": "text"}},
    "reasoning": {"effort": None, "summary": None},
    "truncation": "disabled",
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "max_tool_calls": None,
    "background": False,
    "service_tier": "default",
    "safety_identifier": None,
    "prompt_cache_key": None,
    "tools": [],
}

_TIER: Final = "service_tier"
_encode = msgspec.json.Encoder().encode


class ResponseEcho:
    """The part of one Response object that does not change while the response is made."""

    def __init__(self, response_id: str, request: ResponseRequest, *, created_at: int) -> None:
        static: dict[str, Any] = {
            "id": response_id,
            "object": "response",
            "created_at": created_at,
            "model": request.model,
            "instructions": request.instructions,
            "previous_response_id": request.previous_response_id,
            "tool_choice": _tool_choice(request.tool_choice),
            "parallel_tool_calls": request.parallel_tool_calls,
            "max_output_tokens": request.max_output_tokens,
            "store": request.store,
            "metadata": request.metadata,
            **_DEFAULTS,
            **request.echo,
        }
        place = list(static).index(_TIER)
        fixed = list(static.items())
        self._before = _encode(dict(fixed[:place]))[:-1]  # without the closing brace
        self._after = _encode(dict(fixed[place + 1 :]))[1:-1]
        self._head = self._headed(static[_TIER])

    def render(
        self,
        status: str,
        *,
        output: Sequence[bytes] = (),
        usage: Usage | None = None,
        completed_at: int | None = None,
        error: tuple[str, str] | None = None,
        incomplete_reason: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> bytes:
        """JSON of the Response object.

        ``output`` are the items' JSON texts; ``error`` is (code, message). ``completed_at`` is
        in whole seconds since the epoch, None while the response is being made. ``extra`` are
        keys beyond those of ``STRICT_KEYS``, and ``service_tier``: what was used, known at the end.
        """
        head = self._head
        if extra and _TIER in extra:
            head = self._headed(extra[_TIER])
            extra = {key: value for key, value in extra.items() if key != _TIER}
        tail = {
            "status": status,
            "completed_at": completed_at,
            "error": None if error is None else {"code": error[0], "message": error[1]},
            "incomplete_details": (
                None if incomplete_reason is None else {"reason": incomplete_reason}
            ),
            "usage": None if usage is None else encode_usage(usage),
            **(extra or {}),
        }
        return b"".join((head, b",", _encode(tail)[1:-1], b',"output":[', b",".join(output), b"]}"))

    def _headed(self, tier: object) -> bytes:
        return b"".join((self._before, b',"service_tier":', _encode(tier), b",", self._after))


def encode_usage(usage: Usage) -> dict[str, Any]:
    """Usage as the API writes it; both detail objects are always there."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _tool_choice(choice: ToolChoice) -> str | dict[str, str]:
    is_mode = choice in ("auto", "none", "required")
    return choice if is_mode else {"type": "function", "name": choice}


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _WireUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


def decode_usage(value: object) -> Usage:
    """Usage from a decoded Response object; missing figures count as 0.

    Raises ``msgspec.ValidationError`` when a figure is not an integer.
    """
    wire = msgspec.convert(value if value is not None else {}, _WireUsage)
    cached = wire.input_tokens_details.cached_tokens if wire.input_tokens_details else 0
    reasoning = wire.output_tokens_details.reasoning_tokens if wire.output_tokens_details else 0
    return Usage(wire.input_tokens or 0, cached or 0, wire.output_tokens or 0, reasoning or 0)
