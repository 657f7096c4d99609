"""Every event type that is sent or accepted, with its place in the order and its fields.

The documentation is written from this, and tests compare it with what the code really makes: a type
that is not here cannot be sent, a field that is not here is not on the wire.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

_NONE: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class EventType:
    """One type. ``place`` is when it comes; ``fields`` are always there, ``optional`` sometimes.

    ``is_numbered``: it has a ``sequence_number``. Neither that nor ``type`` is among the fields.
    """

    name: str
    place: str
    fields: Mapping[str, str] = field(default_factory=lambda: _NONE)
    optional: Mapping[str, str] = field(default_factory=lambda: _NONE)
    is_numbered: bool = True


_ITEM_PLACE: Final = {
    "item_id": "id of the item, the same as in `response.output_item.added`",
    "output_index": "the item's place in the response's `output`, from 0",
}
_PART_PLACE: Final = {**_ITEM_PLACE, "content_index": "the part's place in the item, from 0"}
_SUMMARY_PLACE: Final = {**_ITEM_PLACE, "summary_index": "the part's place in the item, from 0"}
_RESPONSE: Final = {"response": "the whole Response object as it is now"}
_STEER: Final = {"steer": "`id` and `previous_response_id` of the steer"}
_LANE: Final = {"stream_id": "the lane; missing for the default one"}

RESPONSES_EVENTS: Final[tuple[EventType, ...]] = (
    EventType("response.created", "First. The response exists.", _RESPONSE, _LANE),
    EventType(
        "response.in_progress",
        "Second; and again, as a heartbeat, whenever nothing was sent for some seconds: the one"
        " beat that every known client's idle timer accepts.",
        _RESPONSE,
        _LANE,
    ),
    EventType(
        "response.output_item.added",
        "An item opens. One at a time: the one before it has had its `response.output_item.done`.",
        {
            "output_index": _ITEM_PLACE["output_index"],
            "item": "the item while it is empty; a call has its `name` and `call_id` already",
        },
        _LANE,
    ),
    EventType(
        "response.content_part.added",
        "After a message's `response.output_item.added`.",
        {**_PART_PLACE, "part": "the part while it is empty"},
        _LANE,
    ),
    EventType(
        "response.output_text.delta",
        "While a message is open, one for each piece that the engine gives.",
        {**_PART_PLACE, "delta": "the new text", "logprobs": "always empty"},
        _LANE,
    ),
    EventType(
        "response.output_text.done",
        "After a message's last delta.",
        {**_PART_PLACE, "text": "all of the part's text", "logprobs": "always empty"},
        _LANE,
    ),
    EventType(
        "response.content_part.done",
        "After `response.output_text.done`.",
        {**_PART_PLACE, "part": "the whole part"},
        _LANE,
    ),
    EventType(
        "response.reasoning_summary_part.added",
        "After a reasoning item's `response.output_item.added`.",
        {**_SUMMARY_PLACE, "part": "the part while it is empty"},
        _LANE,
    ),
    EventType(
        "response.reasoning_summary_text.delta",
        "While a reasoning item is open.",
        {**_SUMMARY_PLACE, "delta": "the new text"},
        _LANE,
    ),
    EventType(
        "response.reasoning_summary_text.done",
        "After a reasoning item's last delta.",
        {**_SUMMARY_PLACE, "text": "all of the part's text"},
        _LANE,
    ),
    EventType(
        "response.reasoning_summary_part.done",
        "After `response.reasoning_summary_text.done`.",
        {**_SUMMARY_PLACE, "part": "the whole part"},
        _LANE,
    ),
    EventType(
        "response.function_call_arguments.delta",
        "While a function call is open.",
        {**_ITEM_PLACE, "delta": "the next piece of the arguments' JSON text"},
        _LANE,
    ),
    EventType(
        "response.function_call_arguments.done",
        "After a call's last delta; not for a call that was cut off.",
        {**_ITEM_PLACE, "arguments": "the arguments' whole JSON text"},
        _LANE,
    ),
    EventType(
        "response.custom_tool_call_input.delta",
        "While a call of a custom (freeform) tool is open.",
        {**_ITEM_PLACE, "delta": "the next piece of the input"},
        _LANE,
    ),
    EventType(
        "response.custom_tool_call_input.done",
        "After such a call's last delta; not for a call that was cut off.",
        {**_ITEM_PLACE, "input": "the whole input"},
        _LANE,
    ),
    EventType(
        "response.output_item.done",
        "The item is whole: start the tool now, not at the end of the response. A `status` of"
        " `incomplete` says that it was cut off; such an item is the last one.",
        {"output_index": _ITEM_PLACE["output_index"], "item": "the whole item"},
        _LANE,
    ),
    EventType(
        "response.steer.accepted",
        "At any time after `response.created`: a `response.steer` is queued for this response.",
        _STEER,
        _LANE,
    ),
    EventType(
        "response.steer.pending",
        "After the terminal event of a response that owes tool outputs: the steer waits for the"
        " `response.create` that brings them, and its input goes in front.",
        {
            **_STEER,
            "reason": "`waiting_for_required_input`",
            "required_input": "what that create must bring: `type` and `call_id` of each output",
        },
        _LANE,
    ),
    EventType(
        "response.steer.failed",
        "At any time: a steer was refused, or its successor could not begin. Always number 0.",
        {
            "steer": "`previous_response_id` and `input`, given back",
            "error": "`type`, `code` and `message`",
        },
        _LANE,
    ),
    EventType(
        "tightloop:timing",
        "Just before the terminal event, for clients that ask (`tightloop.timing` in"
        " `client_metadata`, or the header `X-Tightloop-Timing`).",
        {
            "response_id": "the response",
            "timing": "where its time went, in seconds; see [the figures](wire.md)",
        },
        {
            "route": "`backend`, `service_tier` and `reason`, where one of several backends was"
            " [picked](serving.md)",
            **_LANE,
        },
    ),
    EventType(
        "responsesapi.websocket_timing",
        "Just before the terminal event, on WebSockets of clients that say they are Codex, which"
        " exports the figures as metrics of its own.",
        {"timing_metrics": "figures in milliseconds, by Codex's names"},
        _LANE,
    ),
    EventType(
        "response.completed",
        "Last, when the model ended by itself. A response with `store: true` is on disk by then.",
        _RESPONSE,
        _LANE,
    ),
    EventType(
        "response.incomplete",
        "Last, when the response was ended early: by the token limit, a cancel, an interrupt or a"
        " steer; `incomplete_details.reason` says which.",
        _RESPONSE,
        _LANE,
    ),
    EventType(
        "response.failed",
        "Last, when the engine or the store failed; `error` has a code and a message.",
        _RESPONSE,
        _LANE,
    ),
    EventType(
        "error",
        "WebSocket only, in place of a response: the client event was refused. The connection goes"
        " on.",
        {
            "status": "the HTTP status that the refusal would have",
            "error": "`message`, `type`, `code`, and `param`, the field at fault",
        },
        {**_LANE, "headers": "`retry-after` in seconds, where trying again helps"},
        is_numbered=False,
    ),
)
"""What a server sends in the Responses API, in the order in which it can come."""

CLIENT_EVENTS: Final[tuple[EventType, ...]] = (
    EventType(
        "response.create",
        "At any time; creates of one lane wait for each other.",
        {"model": "a model of this server"},
        {
            **_LANE,
            "generate": "`false` only prefills: answered at once, computed behind",
            "*": "everything that `POST /v1/responses` takes; `stream` and `background` are ignored",
        },
        is_numbered=False,
    ),
    EventType(
        "response.steer",
        "While the named response runs, on the connection that asked for it.",
        {
            "previous_response_id": "the response to steer",
            "input": "text, or a list of user messages",
        },
        is_numbered=False,
    ),
    EventType(
        "response.prefill",
        "A hint, never answered: a piece of the output of a call that the lane's running or latest"
        " response has made, while the tool still runs. To servers that offer it; see"
        " [streamed prefill](wire.md).",
        {
            "previous_response_id": "the response that made the call",
            "call_id": "the call",
        },
        {
            "delta": "the piece",
            "offset": "where it begins in the whole text, in bytes of UTF-8; 0 if missing. What was"
            " known from there on is replaced",
            "done": "`true`: the text ends with this piece",
            "*": "with a `model`, any of a create's settings, where the next create will not have"
            " the parent's",
            **_LANE,
        },
        is_numbered=False,
    ),
    EventType(
        "response.interrupt",
        "While the response runs; of one that is over nothing happens.",
        optional={
            "response_id": "the response; without it, the one that runs in the lane",
            "mode": "`discard_partial_items`: only whole items stay",
            **_LANE,
        },
        is_numbered=False,
    ),
    EventType(
        "response.cancel",
        "While the response runs or waits; of one that is over nothing happens.",
        optional={
            "response_id": "the response; without it, the one that runs in the lane",
            **_LANE,
        },
        is_numbered=False,
    ),
)
"""What a client may send over a WebSocket. Unknown fields are ignored, unknown types refused."""

MESSAGES_EVENTS: Final[tuple[EventType, ...]] = (
    EventType(
        "message_start",
        "First.",
        {"message": "the message while it is empty; nothing is counted in its `usage` yet"},
        is_numbered=False,
    ),
    EventType(
        "content_block_start",
        "A block opens; the one before it has had its `content_block_stop`.",
        {"index": "the block's place, from 0", "content_block": "the block while it is empty"},
        is_numbered=False,
    ),
    EventType(
        "content_block_delta",
        "While a block is open.",
        {
            "index": "the block's place",
            "delta": "`text_delta`, `input_json_delta`, `thinking_delta` or `signature_delta`",
        },
        is_numbered=False,
    ),
    EventType(
        "content_block_stop",
        "After a block's last delta.",
        {"index": "the block's place"},
        is_numbered=False,
    ),
    EventType(
        "ping", "Anywhere after `message_start`: the heartbeat of this API.", is_numbered=False
    ),
    EventType(
        "message_delta",
        "After the last block.",
        {"delta": "`stop_reason` and `stop_sequence`", "usage": "the true usage"},
        is_numbered=False,
    ),
    EventType("message_stop", "Last.", is_numbered=False),
    EventType(
        "error",
        "Last, in place of what would have come.",
        {"error": "`type` and `message` as this API words them, and our own `code`"},
        is_numbered=False,
    ),
)
"""What a server sends in the Anthropic Messages API, in the order in which it can come."""

CHAT_EVENTS: Final[tuple[EventType, ...]] = (
    EventType(
        "chat.completion.chunk",
        "Any number. The first has the role, the last but one the `finish_reason`, the last one, if"
        " `stream_options.include_usage` asked for it, the `usage` and no choice. A chunk with an"
        " empty delta is a heartbeat.",
        {
            "object": "`chat.completion.chunk`; there is no `type`",
            "id": "the same in all chunks",
            "created": "seconds since 1970",
            "model": "the model",
            "choices": "one element with `index`, `delta` and `finish_reason`, or none",
        },
        {
            "usage": "in the last one only",
            "service_tier": "the tier that was used; from the `finish_reason` on, if it was asked for"
            " or there are several",
        },
        is_numbered=False,
    ),
    EventType(
        "error object",
        "Last, in place of what would have come; there is no `type` and no `object`.",
        {"error": "`message`, `type`, `code` and `param`"},
        is_numbered=False,
    ),
)
"""What a server sends in the Chat Completions API before ``data: [DONE]``."""
