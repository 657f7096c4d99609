"""What an engine says while it generates, and what ``response_stream`` turns into events.

Order within one response (checked by ``response_stream``)::

    (ReasoningDelta* | TextDelta* | ToolCallStarted ToolCallDelta* ToolCallDone
     | ContextCompacted)* Finished

A change of kind closes the item before it. Exactly one ``Finished`` ends the response.
"""

from enum import Enum

from msgspec import Struct


class FinishReason(Enum):
    """Why generation ended."""

    STOP = "stop"
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


class TextDelta(Struct, frozen=True, gc=False, tag="text"):
    """More text of the assistant message; never splits a UTF-8 character."""

    text: str


class ReasoningDelta(Struct, frozen=True, gc=False, tag="reasoning"):
    """More text of the reasoning summary."""

    text: str


class ToolCallStarted(Struct, frozen=True, gc=False, tag="tool_call_started"):
    """A tool call opened. ``is_custom``: its input is free text, not JSON arguments."""

    call_id: str
    name: str
    is_custom: bool = False


class ToolCallDelta(Struct, frozen=True, gc=False, tag="tool_call_delta"):
    """More of the open call's arguments (JSON text) or, for a custom tool, of its input."""

    text: str


class ToolCallDone(Struct, frozen=True, gc=False, tag="tool_call_done"):
    """The open call is complete and can be dispatched now."""


class ContextCompacted(Struct, frozen=True, gc=False, tag="context_compacted"):
    """The conversation before this point was summed up; the text is a ``Compaction`` item's.

    Made by a server, not by an engine.
    """

    encrypted_content: str


class Usage(Struct, frozen=True, gc=False):
    """Token counts of one response; ``cached_tokens`` of the input were not prefilled again.

    Of the tokens that the engine took from the request's ``prediction`` to check, the accepted
    ones came true and are among the output; the rejected ones are not, and nobody is charged.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class EngineTiming(Struct, frozen=True, gc=False):
    """Where an engine's time went. Clock readings of ``trace.clock`` on the engine's host, in ns.

    submitted <= started <= prefilled <= finished: the request waited in the queue, its new
    tokens were prefilled, then tokens were decoded. ``num_decode_steps`` counts tokens the
    network was asked for (the base of every tokens/s figure): a step each, but for the
    ``num_accepted_tokens`` that were drafts (of ``num_draft_tokens`` checked) and came true in the
    step of another token. Text that was copied or templated is in ``Usage.output_tokens`` but not here. ``decode_ns`` is the time spent inside
    those steps alone, 0 when the engine cannot tell (then finished - prefilled stands in).
    ``first_delta_ns`` is when the first delta left the engine, 0 when there was none.
    """

    submitted_ns: int
    started_ns: int
    prefilled_ns: int
    finished_ns: int
    num_prefill_tokens: int = 0
    num_decode_steps: int = 0
    decode_ns: int = 0
    first_delta_ns: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0


class Finished(Struct, frozen=True, gc=False, tag="finished"):
    """The last delta. ``error_code``/``error_message`` are set when ``reason`` is ERROR.

    ``stop_sequence`` is the stop string of the request that ended the text, where the engine knows.
    ``retry_after_s`` is how long to wait before asking again, where a remote host said so.
    ``backend`` and ``route_reason`` say which of several backends made the response, and why that
    one; ``service_tier`` is the tier that it used, in the API's words.
    """

    reason: FinishReason
    usage: Usage
    timing: EngineTiming | None = None
    error_code: str | None = None
    error_message: str | None = None
    stop_sequence: str | None = None
    retry_after_s: float | None = None
    backend: str | None = None
    route_reason: str | None = None
    service_tier: str | None = None


Delta = (
    TextDelta
    | ReasoningDelta
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallDone
    | ContextCompacted
    | Finished
)
