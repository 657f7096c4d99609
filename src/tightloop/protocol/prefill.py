"""Streamed prefill: what a client sends of a tool's output while the tool still runs.

An extension of WebSocket mode. A ``response.prefill`` event is a hint: it is never answered, makes
no response and changes none; what the next ``response.create`` says is what counts. A server that
knows the event says so when the socket opens (``CAPABILITIES_HEADER``) and in its list of models;
clients send nothing to one that does not.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from tightloop.protocol.errors import ApiError
from tightloop.protocol.requests import STREAM_ID, RequestDecoder, ResponseRequest

PREFILL: Final = "response.prefill"
"""The event's type, and the name of the capability."""

CAPABILITIES_HEADER: Final = "X-Tightloop-Capabilities"
"""Of the answer that opens a WebSocket: names of extensions, separated by commas."""

CANCEL: Final = "response.cancel"
"""The capability to end a response so that it keeps what it said, but for half a call, and can be
continued from.
Other servers know the event too, or refuse it; what they do with the response is not known."""

MAX_PREFILL_BYTES: Final = 256 << 10
"""Of the texts that a server keeps for a lane, in UTF-8; more of them is ignored."""

MAX_PREFILL_CALLS: Final = 64
"""Calls of one response whose outputs a server takes in pieces; those of others are ignored."""


class Prefill(Struct, frozen=True):
    """A piece of the output of one call of the response ``previous_response_id``.

    ``offset`` is where the piece begins, in bytes of UTF-8 of the whole text: it takes the place of
    everything known from there on. ``done`` says that the text ends with the piece. ``settings``
    are those of the create to come, where it will not have those of the parent's.
    """

    previous_response_id: str
    call_id: str
    delta: str = ""
    offset: int = 0
    done: bool = False
    stream_id: str | None = None
    settings: ResponseRequest | None = None


class _WirePrefill(Struct):
    previous_response_id: str
    call_id: str
    delta: str = ""
    offset: Annotated[int, Meta(ge=0)] = 0
    done: bool = False
    stream_id: str | None = None
    model: Any = None


_decoder: Final = msgspec.json.Decoder(_WirePrefill)


def decode_prefill(raw: bytes, requests: RequestDecoder) -> Prefill | None:
    """The hint; None for one that is malformed.

    It gets no error event: that would look like the refusal of the create which comes next.
    """
    try:
        wire = _decoder.decode(raw)
        settings = requests.decode(raw) if wire.model is not None else None
    except (msgspec.DecodeError, UnicodeError, RecursionError, ApiError):
        return None
    if wire.stream_id is not None and not STREAM_ID.fullmatch(wire.stream_id):
        return None
    return Prefill(
        wire.previous_response_id,
        wire.call_id,
        wire.delta,
        wire.offset,
        wire.done,
        wire.stream_id,
        settings,
    )


def prefill_event(hint: Prefill) -> dict[str, Any]:
    """The event as a client sends it, without settings; what has its usual value is left out."""
    event: dict[str, Any] = {
        "type": PREFILL,
        "previous_response_id": hint.previous_response_id,
        "call_id": hint.call_id,
        "offset": hint.offset,
        "delta": hint.delta,
    }
    if hint.done:
        event["done"] = True
    if hint.stream_id is not None:
        event["stream_id"] = hint.stream_id
    return event


def capabilities_of(header: str | None) -> frozenset[str]:
    """The names in the value of ``CAPABILITIES_HEADER``; none when it is missing."""
    names = (name.strip() for name in (header or "").split(","))
    return frozenset(name for name in names if name)
