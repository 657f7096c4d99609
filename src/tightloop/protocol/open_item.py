"""The output item being streamed: its events' fixed parts, built once when it opens.

A delta event is ``delta_template % (sequence number, escaped text)``: everything but these two is
known when the item opens.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from tightloop.protocol.deltas import ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStarted
from tightloop.protocol.items import (
    CustomToolCall,
    FunctionCall,
    Item,
    Message,
    Reasoning,
    TextPart,
)
from tightloop.protocol.output_items import (
    call_item,
    message_item,
    reasoning_item,
    summary_part,
    text_part,
)

Event = tuple[str, dict[str, Any]]
"""Type and fields of an event, without sequence number and lane."""


def literally(text: bytes) -> bytes:
    """``text`` as a part of a template."""
    return text.replace(b"%", b"%%")


class ClosedItem(Struct):
    """How an item ended: its last events, its complete JSON value, and the item itself."""

    events: list[Event]
    json: dict[str, Any]
    item: Item


class OpenItem(ABC):
    """Common to the three kinds. ``pieces`` are the texts so far."""

    delta_type: ClassVar[type[Any]]

    def __init__(self, item_id: str, index: int, delta_event: str, place: dict[str, Any]) -> None:
        self.id = item_id
        self.index = index
        self.pieces: list[str] = []
        self._place = {"item_id": item_id, "output_index": index, **place}
        place_json = literally(msgspec.json.encode(self._place)[1:-1])
        head = b'{"type":"%b","sequence_number":' % delta_event.encode()
        self.delta_template = head + b"%d," + place_json + b',"delta":%b'

    @abstractmethod
    def opening(self) -> Sequence[Event]:
        """The events before the first delta."""

    @abstractmethod
    def close(self, status: str) -> ClosedItem:
        """The events between the last delta and ``output_item.done``, and the item."""

    def _added(self, item: dict[str, Any]) -> Event:
        return ("response.output_item.added", {"output_index": self.index, "item": item})


class OpenMessage(OpenItem):
    """An assistant message of one text part."""

    delta_type = TextDelta

    def __init__(self, item_id: str, index: int) -> None:
        super().__init__(item_id, index, "response.output_text.delta", {"content_index": 0})
        self.delta_template += b',"logprobs":[]'

    def opening(self) -> Sequence[Event]:
        return (
            self._added(message_item(self.id, None, "in_progress")),
            ("response.content_part.added", {**self._place, "part": text_part("")}),
        )

    def close(self, status: str) -> ClosedItem:
        text = "".join(self.pieces)
        return ClosedItem(
            [
                ("response.output_text.done", {**self._place, "text": text, "logprobs": []}),
                ("response.content_part.done", {**self._place, "part": text_part(text)}),
            ],
            message_item(self.id, text, status),
            Message("assistant", (TextPart("output_text", text),), id=self.id),
        )


class OpenReasoning(OpenItem):
    """A reasoning item of one summary part."""

    delta_type = ReasoningDelta

    def __init__(self, item_id: str, index: int) -> None:
        event = "response.reasoning_summary_text.delta"
        super().__init__(item_id, index, event, {"summary_index": 0})

    def opening(self) -> Sequence[Event]:
        part = {**self._place, "part": summary_part("")}
        return (
            self._added(reasoning_item(self.id, None)),
            ("response.reasoning_summary_part.added", part),
        )

    def close(self, status: str) -> ClosedItem:
        text = "".join(self.pieces)
        done = {**self._place, "part": summary_part(text)}
        return ClosedItem(
            [
                ("response.reasoning_summary_text.done", {**self._place, "text": text}),
                ("response.reasoning_summary_part.done", done),
            ],
            reasoning_item(self.id, text, None if status == "completed" else status),
            Reasoning((text,), id=self.id),
        )


class OpenCall(OpenItem):
    """A call of a function (JSON arguments) or of a custom tool (free text)."""

    delta_type = ToolCallDelta

    def __init__(
        self, item_id: str, index: int, started: ToolCallStarted, namespace: str | None
    ) -> None:
        self._started = started
        self._namespace = namespace
        self._kind = "custom_tool_call_input" if started.is_custom else "function_call_arguments"
        super().__init__(item_id, index, f"response.{self._kind}.delta", {})

    def opening(self) -> Sequence[Event]:
        return (self._added(call_item(self._item(""), self.id, "in_progress")),)

    def close(self, status: str) -> ClosedItem:
        text = "".join(self.pieces)
        item = self._item(text)
        field = "input" if self._started.is_custom else "arguments"
        done = (f"response.{self._kind}.done", {**self._place, field: text})
        # Some clients act on this event alone, so a call that was cut off does not get it.
        events = [done] if status == "completed" else []
        return ClosedItem(events, call_item(item, self.id, status), item)

    def _item(self, text: str) -> FunctionCall | CustomToolCall:
        kind = CustomToolCall if self._started.is_custom else FunctionCall
        return kind(self._started.call_id, self._started.name, text, self.id, self._namespace)
