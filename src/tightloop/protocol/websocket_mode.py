"""WebSocket mode: what a client may send, and the shapes of errors on every transport.

A client sends one JSON event per text frame. Everything a server answers with comes from
``response_stream``, except the errors here.
"""

import math
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from tightloop.protocol.errors import ApiError, from_validation_error
from tightloop.protocol.items import Item, Message, decode_input
from tightloop.protocol.prefill import PREFILL, Prefill, decode_prefill
from tightloop.protocol.requests import RequestDecoder, ResponseRequest
from tightloop.protocol.surrogates import has_surrogate_escape, replace_lone_surrogates

MAX_IN_FLIGHT: Final = 16
"""Responses in flight per connection; further creates wait. Source: WebSocket mode guide."""

MAX_NAMED_STREAMS: Final = 32
"""Distinct ``stream_id`` values per connection. Source: WebSocket mode guide."""


class ResponseCreate(Struct, frozen=True):
    """``response.create``; a prewarm when ``request.generate`` is False."""

    request: ResponseRequest


class ResponseCancel(Struct, frozen=True):
    """``response.cancel``: end the response, or the lane's active one when no id is given."""

    response_id: str | None = None
    stream_id: str | None = None


class ResponseInterrupt(Struct, frozen=True):
    """``response.interrupt``: end at once; with ``discard_partial_items`` only whole items stay."""

    response_id: str | None = None
    mode: str = "discard_partial_items"
    stream_id: str | None = None


class ResponseSteer(Struct, frozen=True):
    """``response.steer``: user messages for a response that is being made.

    ``given`` is the input as it came, to be given back if the steer fails. ``is_valid`` False: it
    is neither text nor a list of user messages.
    """

    previous_response_id: str
    input: tuple[Item, ...]
    given: Raw = Raw(b"null")
    is_valid: bool = True


class ResponsePrefill(Struct, frozen=True):
    """``response.prefill``: a hint, never answered; None when it is malformed."""

    hint: Prefill | None


class UnknownEvent(Struct, frozen=True):
    """An event type this package does not know: an extension's, or a mistake.

    A server that does not know it either answers with ``unknown_event_error``.
    """

    type: str
    raw: bytes


ClientEvent = (
    ResponseCreate
    | ResponseCancel
    | ResponseInterrupt
    | ResponseSteer
    | ResponsePrefill
    | UnknownEvent
)


class _Peek(Struct):
    type: str


class _WireSteer(Struct):
    previous_response_id: str
    input: Raw


_peek: Final = msgspec.json.Decoder(_Peek)
_cancel: Final = msgspec.json.Decoder(ResponseCancel)
_interrupt: Final = msgspec.json.Decoder(ResponseInterrupt)
_steer: Final = msgspec.json.Decoder(_WireSteer)
_encode = msgspec.json.Encoder().encode
_CREATE: Final = Raw(b'"response.create"')
_LIKELY_CREATE: Final = (b'{"type":"response.create",', b'{"type": "response.create",')


class ClientEventDecoder:
    """Decodes the text frames of one connection."""

    def __init__(self) -> None:
        self._requests = RequestDecoder(websocket=True)

    def decode(self, frame: bytes | str) -> ClientEvent:
        """The event. Raises ``ApiError`` 400 for what must be answered with an error event."""
        raw = frame.encode("utf-8", "replace") if isinstance(frame, str) else frame
        try:
            return self._decode(raw)
        except ApiError as error:
            if error.code != "invalid_json" or not has_surrogate_escape(raw):
                raise
        return self._decode(replace_lone_surrogates(raw).encode())

    def _decode(self, raw: bytes) -> ClientEvent:
        if raw.startswith(_LIKELY_CREATE):  # how clients write it: no need to look first
            with suppress(ApiError):  # the way below says what is wrong
                request = self._requests.decode_event(raw, _CREATE)
                if request is not None:
                    return ResponseCreate(request)
        kind = _typed(_peek, raw).type
        if kind == "response.create":
            return ResponseCreate(self._requests.decode(raw))
        if kind == "response.cancel":
            cancel: ResponseCancel = _typed(_cancel, raw)
            return cancel
        if kind == "response.interrupt":
            interrupt: ResponseInterrupt = _typed(_interrupt, raw)
            return interrupt
        if kind == "response.steer":
            return _decode_steer(raw)
        if kind == PREFILL:
            return ResponsePrefill(decode_prefill(raw, self._requests))
        return UnknownEvent(kind, raw)


def _decode_steer(raw: bytes) -> ResponseSteer:
    wire = _typed(_steer, raw)
    _check_utf8(wire.input)  # it may be given back
    given = wire.input.copy()
    try:
        items = decode_input(wire.input)
    except ApiError:
        items = ()
    is_valid = bool(items) and all(
        isinstance(item, Message) and item.role == "user" for item in items
    )
    return ResponseSteer(wire.previous_response_id, items if is_valid else (), given, is_valid)


def _typed(decoder: "msgspec.json.Decoder[Any]", raw: bytes) -> Any:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise from_validation_error(error) from error


def _check_utf8(raw: Raw) -> None:
    """Bytes kept as ``Raw`` are not checked by the decoder."""
    try:
        str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise from_validation_error(error, "input") from error


def unknown_event_error(type: str) -> ApiError:
    """The refusal of an event type nobody knows."""
    return ApiError(
        f"unknown event type {type[:200]!r}; expected response.create,"
        " response.cancel, response.interrupt, response.steer or response.prefill",
        code="unknown_event_type",
        param="type",
    )


def binary_frame_error() -> ApiError:
    """The refusal of a binary frame."""
    return ApiError("binary frames are not accepted; send JSON in text frames", code="invalid_json")


# ---------------------------------------------------------------------- errors on the wire


def error_event(error: ApiError, stream_id: str | None = None) -> bytes:
    """A WebSocket error event: nested, with the HTTP status; headers when a retry makes sense.

    ``stream_id`` is that of the ``response.create`` refused, if it had one.
    """
    event: dict[str, Any] = {"type": "error", "status": error.status, "error": error.body()}
    if error.retry_after_s is not None:
        event["headers"] = retry_headers(error)
    if stream_id is not None:
        event["stream_id"] = stream_id
    return _encode(event)


def http_error_body(error: ApiError) -> bytes:
    """The body of an HTTP refusal; send ``retry_headers(error)`` with it."""
    return _encode({"error": error.body()})


def retry_headers(error: ApiError) -> dict[str, str]:
    """``retry-after`` in whole seconds, rounded up; empty when there is nothing to say."""
    if error.retry_after_s is None:
        return {}
    return {"retry-after": str(max(0, math.ceil(error.retry_after_s)))}
