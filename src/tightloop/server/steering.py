"""User messages for a response that is being made: ``response.steer``.

A steer is *accepted* once it is queued for its response. It takes effect with the successor, a
response that continues from the steered one with the queued input and follows by itself: at once,
because the running response stops where it is (status ``incomplete``, reason ``steered``). A response
that has begun a tool call is not stopped: its call may already be running. When it ends, the client
owes it the calls' outputs; the steer is then *pending*, and its input goes in front of that of the
create which brings them. A response that is cancelled or interrupted after a steer has no successor:
the steer fails. Source: WebSocket mode guide of the Responses API.
"""

from collections.abc import Iterable, Mapping, Sequence
from secrets import token_hex
from typing import Any, Final

import msgspec

from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    encode_item,
)
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.websocket_mode import ResponseSteer

MAX_PENDING_STEERS: Final = 16
"""Steers that one response may collect."""


MAX_STEER_BYTES: Final = 32 << 20
"""Of JSON in them."""


class SteerRefused(Exception):
    """A steer that cannot be honoured; ``code`` is one of the documented ones."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Steer(msgspec.Struct, frozen=True):
    """An accepted steer."""

    id: str
    previous_response_id: str
    input: tuple[Item, ...]
    num_bytes: int = 0

    def fields(self) -> dict[str, Any]:
        """How events name it."""
        return {"id": self.id, "previous_response_id": self.previous_response_id}

    def given_back(self) -> list[dict[str, Any]]:
        """The input as a client sends it again."""
        return [encode_item(item) for item in self.input]


def accept(event: ResponseSteer, request: ResponseRequest, queued: Sequence[Steer]) -> Steer:
    """The steer of a response made for ``request`` that has ``queued`` already.

    Raises ``SteerRefused``.
    """
    if request.conversation is not None or request.compact_threshold is not None:
        raise SteerRefused(
            "steering_not_supported",
            "a response with a conversation or with automatic compaction cannot be steered",
        )
    num_bytes = len(bytes(event.given))
    held_bytes = sum(steer.num_bytes for steer in queued)
    if len(queued) >= MAX_PENDING_STEERS or held_bytes + num_bytes > MAX_STEER_BYTES:
        raise SteerRefused(
            "too_many_pending_steers",
            f"{len(queued)} steers of this response are waiting; wait for its successor",
        )
    return Steer(f"st_{token_hex(12)}", event.previous_response_id, event.input, num_bytes)


def owed_outputs(items: Iterable[Item]) -> list[dict[str, str]]:
    """Stubs of the tool outputs that the client owes after ``items``, in the calls' order."""
    owed: dict[str, dict[str, str]] = {}
    for item in items:
        if isinstance(item, FunctionCall):
            stub = {"type": "function_call_output", "call_id": item.call_id, "name": item.name}
            owed[item.call_id] = stub
        elif isinstance(item, CustomToolCall):
            owed[item.call_id] = {"type": "custom_tool_call_output", "call_id": item.call_id}
        elif isinstance(item, FunctionCallOutput | CustomToolCallOutput):
            owed.pop(item.call_id, None)
    return list(owed.values())


def pending_fields(steer: Steer, owed: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Fields of ``response.steer.pending``."""
    return {
        "reason": "waiting_for_required_input",
        "steer": steer.fields(),
        "required_input": list(owed),
    }


def successor_of(request: ResponseRequest, steers: Sequence[Steer]) -> ResponseRequest:
    """The request that continues a steered response: its settings, the steers' input."""
    parent_id = steers[0].previous_response_id
    return msgspec.structs.replace(
        request,
        previous_response_id=parent_id,
        input=tuple(item for steer in steers for item in steer.input),
        generate=True,
        echo={**request.echo, "previous_response_id": parent_id},
    )


def with_queued(request: ResponseRequest, steers: Sequence[Steer]) -> ResponseRequest:
    """A create that brings owed outputs, with the steers' input in front of its own."""
    queued = tuple(item for steer in steers for item in steer.input)
    return msgspec.structs.replace(request, input=queued + request.input)


def refusal_fields(refused: SteerRefused, response_id: object, input: object) -> dict[str, Any]:
    """Fields of ``response.steer.failed``, which gives the input back."""
    return {
        "steer": {"previous_response_id": response_id, "input": input},
        "error": {
            "type": "invalid_request_error",
            "code": refused.code,
            "message": str(refused),
        },
    }


def refusal_event(
    refused: SteerRefused, response_id: object, input: object, stream_id: str | None = None
) -> bytes:
    """``response.steer.failed`` outside the events of a response, so without a place among them."""
    event: dict[str, Any] = {
        "type": "response.steer.failed",
        "sequence_number": 0,
        **refusal_fields(refused, response_id, input),
    }
    if stream_id is not None:
        event["stream_id"] = stream_id
    return msgspec.json.encode(event)
