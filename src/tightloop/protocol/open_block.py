"""The content block of a Messages answer being streamed: its events' fixed parts, built once.

A delta event is ``delta_head``, the escaped text and two closing braces.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import msgspec
from msgspec import Raw

from tightloop.protocol.deltas import ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStarted
from tightloop.protocol.items import FunctionCall, Item, Message, Reasoning, TextPart

_encode = msgspec.json.Encoder().encode


class OpenBlock(ABC):
    """Common to the three kinds. ``pieces`` are the texts so far; ``index`` is its place."""

    delta_type: ClassVar[type[Any]]

    def __init__(
        self, item_id: str, index: int, kind: str, field: str, *, is_shown: bool = True
    ) -> None:
        self.id = item_id
        self.index = index
        self.is_shown = is_shown
        self.pieces: list[str] = []
        self.delta_head = b'{"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":' % (
            index,
            kind.encode(),
            field.encode(),
        )

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self.pieces)

    def opening(self) -> bytes:
        """``content_block_start``, with the block as it is while it is empty."""
        return _encode(
            {"type": "content_block_start", "index": self.index, "content_block": self.json()}
        )

    def closing(self) -> list[bytes]:
        """The events after the last delta."""
        return [_encode({"type": "content_block_stop", "index": self.index})]

    @abstractmethod
    def json(self) -> dict[str, Any]:
        """The block as it stands in a whole message."""

    @abstractmethod
    def item(self) -> Item:
        """The item it stands for."""


class TextBlock(OpenBlock):
    """Text of the assistant."""

    delta_type = TextDelta

    def __init__(self, item_id: str, index: int) -> None:
        super().__init__(item_id, index, "text_delta", "text")

    def json(self) -> dict[str, Any]:
        return {"type": "text", "text": self.text}

    def item(self) -> Item:
        return Message("assistant", (TextPart("output_text", self.text),), id=self.id)


class ThinkingBlock(OpenBlock):
    """Reasoning. Its signature is empty: nothing here checks one when the block comes back."""

    delta_type = ReasoningDelta

    def __init__(self, item_id: str, index: int, *, is_shown: bool) -> None:
        super().__init__(item_id, index, "thinking_delta", "thinking", is_shown=is_shown)

    def closing(self) -> list[bytes]:
        delta = {"type": "signature_delta", "signature": ""}
        signed = {"type": "content_block_delta", "index": self.index, "delta": delta}
        return [_encode(signed), *super().closing()]

    def json(self) -> dict[str, Any]:
        return {"type": "thinking", "thinking": self.text, "signature": ""}

    def item(self) -> Item:
        return Reasoning((self.text,), id=self.id)


class ToolUseBlock(OpenBlock):
    """A tool call; the deltas are pieces of the JSON text of its input."""

    delta_type = ToolCallDelta

    def __init__(self, item_id: str, index: int, started: ToolCallStarted) -> None:
        super().__init__(item_id, index, "input_json_delta", "partial_json")
        self._started = started

    def json(self) -> dict[str, Any]:
        return {
            "type": "tool_use",
            "id": self._started.call_id,
            "name": self._started.name,
            "input": _object(self.text),
        }

    def item(self) -> Item:
        return FunctionCall(self._started.call_id, self._started.name, self.text, self.id)


def _object(text: str) -> Raw:
    """The arguments if they are a JSON object; an empty one for a call that was cut off."""
    try:
        msgspec.json.decode(text, type=dict[str, Raw])
    except (msgspec.DecodeError, RecursionError):
        return Raw(b"{}")
    return Raw(text.encode())
