"""From the events of one response back to its items: the inverse of ``response_stream``.

Order is checked where breaking it would mean acting on wrong data: nothing after the terminal
event, one response per stream, deltas and ``done`` only for an item that is open. Tolerated,
because real servers do it: unknown event types, missing ``created`` and ``in_progress``, items
that appear with ``output_item.done`` alone, items without ``output_index``, ids that differ
between an item's events, and a terminal event with nothing but the response's id.
"""

from typing import Any, Final

import msgspec

from tightloop.protocol.deltas import Usage
from tightloop.protocol.errors import ApiError, RemoteProtocolError, api_error_from_wire
from tightloop.protocol.items import Item, item_from_wire
from tightloop.protocol.response import decode_usage

Event = dict[str, Any]

TERMINAL_TYPES: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
)
"""Types of the event that ends a response."""

OUTPUT_DELTA_TYPES: Final = frozenset(
    {
        "response.output_text.delta",
        "response.refusal.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta",
        "response.reasoning.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
    }
)
"""Types of the events that carry new output; the first of them ends the time to first token."""

_START_TYPES: Final = frozenset({"response.created", "response.in_progress", "response.queued"})


def completed_item(event: Event) -> Item | None:
    """The item of an ``output_item.done`` event, ready to be acted on; None for any other event.

    None also for an item that ended ``incomplete``: a call cut off half-way must not be run.
    Raises ``RemoteProtocolError`` when the item cannot be read.
    """
    if event.get("type") != "response.output_item.done":
        return None
    fields = event.get("item")
    if isinstance(fields, dict) and fields.get("status") == "incomplete":
        return None
    return _item(event)


def _item(event: Event) -> Item:
    fields = event.get("item")
    if not isinstance(fields, dict):
        raise RemoteProtocolError("response.output_item.done has no item", param="item")
    try:
        return item_from_wire(fields)
    except ApiError as error:
        raise RemoteProtocolError(f"output item: {error}", param=error.param) from error


class Accumulator:
    """Reads the events of one response in order.

    ``status`` starts as ``queued`` and follows the events; ``error`` is set when the response
    failed, ``incomplete_reason`` when it is incomplete, ``timing`` when the server sent one.
    """

    def __init__(self) -> None:
        self.response_id: str | None = None
        self.status = "queued"
        self.usage: Usage | None = None
        self.error: ApiError | None = None
        self.incomplete_reason: str | None = None
        self.timing: dict[str, Any] | None = None
        self.response: dict[str, Any] | None = None
        """The Response object of the terminal event, as it came."""
        self._items: dict[int, Item] = {}
        self._open: set[int] = set()
        self._is_numbered = False
        self._is_finished = False

    @property
    def output_items(self) -> tuple[Item, ...]:
        """The items that are done so far, in output order."""
        return tuple(self._items[index] for index in sorted(self._items))

    @property
    def is_finished(self) -> bool:
        """Whether the terminal event came."""
        return self._is_finished

    def feed(self, event: Event) -> Item | None:
        """Take the next event; gives the item if this event completes one (see completed_item).

        Raises ``RemoteProtocolError`` for an order or a shape that the protocol does not allow.
        """
        kind = event.get("type")
        if not isinstance(kind, str):
            raise RemoteProtocolError(f"an event has no type: {str(event)[:200]}", param="type")
        if self._is_finished:
            raise RemoteProtocolError(f"{kind} came after the end of {self.response_id}")
        if kind in OUTPUT_DELTA_TYPES:
            self._check_open(kind, event)
        elif kind == "response.output_item.added":
            self._add(event)
        elif kind == "response.output_item.done":
            return self._done(event)
        elif kind in _START_TYPES:
            self._take_response(kind, event)
            self.status = "queued" if kind == "response.queued" else "in_progress"
        elif kind in TERMINAL_TYPES:
            self._finish(kind, event)
        elif kind == "error":
            # Not terminal by itself: strict servers follow it with response.failed.
            self.error = api_error_from_wire(event, status=500)
            self.status = "failed"
        elif kind == "tightloop:timing" and isinstance(event.get("timing"), dict):
            self.timing = event["timing"]
        return None

    def _check_open(self, kind: str, event: Event) -> None:
        if event.get("output_index") is None and self._open and not self._is_numbered:
            return  # llama.cpp numbers no items; it sends one after the other
        index = _index(event)
        if index not in self._open:
            raise RemoteProtocolError(
                f"{kind} for output item {index}, which is not open", param="output_index"
            )

    def _add(self, event: Event) -> None:
        if event.get("output_index") is None:
            index = max((*self._items, *self._open), default=-1) + 1
        else:
            index = _index(event)
            self._is_numbered = True
        if index in self._open or index in self._items:
            raise RemoteProtocolError(f"output item {index} was added twice", param="output_index")
        self._open.add(index)

    def _done(self, event: Event) -> Item | None:
        if event.get("output_index") is None:  # the least that some servers send
            index = min(self._open, default=max(self._items, default=-1) + 1)
        else:
            index = _index(event)
        if index in self._items:
            raise RemoteProtocolError(f"output item {index} ended twice", param="output_index")
        self._items[index] = _item(event)
        self._open.discard(index)
        return completed_item(event)

    def _take_response(self, kind: str, event: Event) -> dict[str, Any]:
        response = event.get("response")
        if not isinstance(response, dict):
            raise RemoteProtocolError(f"{kind} carries no response", param="response")
        response_id = response.get("id")
        if response_id is not None and not isinstance(response_id, str):
            raise RemoteProtocolError(f"the response's id is {response_id!r}", param="response.id")
        if self.response_id is not None and response_id not in (None, self.response_id):
            raise RemoteProtocolError(
                f"{kind} is about {response_id}, the stream about {self.response_id}",
                param="response.id",
            )
        self.response_id = self.response_id or response_id
        return response

    def _finish(self, kind: str, event: Event) -> None:
        response = self._take_response(kind, event)
        try:
            self.usage = None if response.get("usage") is None else decode_usage(response["usage"])
        except msgspec.ValidationError as error:
            raise RemoteProtocolError(f"usage: {error}", param="response.usage") from error
        if not self._items:
            self._take_output(response.get("output"))
        if isinstance(response.get("error"), dict):
            self.error = api_error_from_wire({"error": response["error"]}, status=500)
        details = response.get("incomplete_details")
        if isinstance(details, dict) and isinstance(details.get("reason"), str):
            self.incomplete_reason = details["reason"]
        self.response = response
        self.status = kind.removeprefix("response.")
        self._open.clear()
        self._is_finished = True

    def _take_output(self, output: object) -> None:
        """Items of a terminal event when none came before it."""
        if isinstance(output, list):
            self._items = {n: _item({"item": fields}) for n, fields in enumerate(output)}


def _index(event: Event) -> int:
    index = event.get("output_index")
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise RemoteProtocolError(f"output_index is {index!r}", param="output_index")
    return index
