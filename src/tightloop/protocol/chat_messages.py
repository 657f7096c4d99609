"""From Responses items to the messages of a chat, step by step as a conversation grows.

The order of a chat is stricter than that of items: a tool message must follow the assistant
message that made the call, and many chat templates accept a system message in the first place
only. So neighbouring output items become one assistant message, outputs move up to their calls,
leading system and developer messages (and the instructions) become one system message, and later
ones become user messages. Tool messages are text for most hosts, so images in a tool's output follow
in a user message of their own, after the outputs of the same turn.

``Transcript`` keeps the messages as JSON, so that a turn words its new items only. What the next items
can still change, an assistant message that may go on and its calls' outputs, is kept open. An output
belongs to the latest call of its id before it: some hosts number the calls of each answer anew.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from tightloop.protocol.compaction import unseal, visible
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    Compaction,
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OpaqueItem,
    OpaquePart,
    Reasoning,
    TextPart,
)

CUSTOM_INPUT: Final = "input"
"""The one argument of the function that stands for a custom tool."""

NO_OUTPUT: Final = "[no output: the call was interrupted]"
"""Stands for the output of a call that never got one; a chat without it would be refused."""

IMAGE_FOLLOWS: Final = "[the output is an image, in the next user message]"
"""The text of a tool message whose output is nothing but images."""

Output = FunctionCallOutput | CustomToolCallOutput

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class _Open:
    """An assistant message to which the next items may add. ``keys`` name its calls' places."""

    message: dict[str, Any]
    keys: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    """The messages of all items up to a place in a conversation. Immutable; shares its parent's.

    ``piece`` is the JSON of the messages that this step closed, joined by commas. ``num_items`` counts
    from the last compaction that hid what came before it.
    """

    parent: "Transcript | None" = None
    piece: bytes = b""
    num_items: int = 0
    leading: tuple[str, ...] = ()
    is_leading: bool = True
    called: frozenset[str] = frozenset()
    include_reasoning: bool = False
    _open: _Open | None = None

    @property
    def num_bytes(self) -> int:
        """Of this step alone."""
        return len(self.piece)

    def extended(self, items: Sequence[Item]) -> "Transcript | None":
        """The transcript with ``items`` after it; None when they change a message closed before.

        That is the case for an output that comes after its place: word all items anew then, from an
        empty transcript, which never gives None. Raises ``ApiError`` 400 as ``build_messages``.
        """
        base = self
        for item in items:
            if isinstance(item, Compaction) and unseal(item).hides_earlier:
                base = Transcript(include_reasoning=self.include_reasoning)
        builder = _Builder(base, visible(items))
        if builder.changes_earlier:
            return None
        builder.build()
        return builder.snapshot()

    def pieces(self) -> list[bytes]:
        """The closed messages of all steps, oldest first; none is empty."""
        found: list[bytes] = []
        step: Transcript | None = self
        while step is not None:
            if step.piece:
                found.append(step.piece)
            step = step.parent
        found.reverse()
        return found

    def system(self, instructions: str | None) -> bytes:
        """The JSON of the system message, empty when there is none."""
        message = _system(instructions, self.leading)
        return _encode(message) if message else b""

    def open_piece(self) -> bytes:
        """The messages that the next items may still change, as they are if none come."""
        builder = _Builder(self, ())
        builder.flush()
        return b",".join(map(_encode, builder.messages))


def build_messages(
    items: Iterable[Item], instructions: str | None = None, *, include_reasoning: bool = False
) -> list[dict[str, Any]]:
    """The messages of a whole conversation.

    Raises ``ApiError`` 400 for content that a chat cannot carry, and for an output whose call does not
    come before it.
    """
    builder = _Builder(Transcript(include_reasoning=include_reasoning), list(items))
    builder.build()
    builder.flush()
    system = _system(instructions, builder.leading)
    return [system, *builder.messages] if system else builder.messages


def _system(instructions: str | None, leading: Sequence[str]) -> dict[str, Any] | None:
    text = "\n\n".join([instructions, *leading] if instructions else leading)
    return {"role": "system", "content": text} if text else None


class _Builder:
    """Words the items that follow ``base``."""

    def __init__(self, base: Transcript, items: Sequence[Item]) -> None:
        self.messages: list[dict[str, Any]] = []
        self.leading = list(base.leading)
        self.changes_earlier = False
        self._base = base
        self._items = items
        self._is_leading = base.is_leading
        self._called: set[str] = set()
        self._assistant: dict[str, Any] | None = None  # being collected
        self._keys: list[int] = []  # places of its calls
        if base._open is not None:
            self._assistant = dict(base._open.message)
            if "tool_calls" in self._assistant:
                self._assistant["tool_calls"] = list(self._assistant["tool_calls"])
            self._keys = list(base._open.keys)
        self._outputs = self._matched()

    def _matched(self) -> dict[int, tuple[int, Output]]:
        """Each call's output and its place, by the place of the call."""
        calls = self._assistant.get("tool_calls", ()) if self._assistant else ()
        latest = {call["id"]: key for call, key in zip(calls, self._keys, strict=True)}
        found: dict[int, tuple[int, Output]] = {}
        for index, item in enumerate(self._items, self._base.num_items):
            if isinstance(item, FunctionCall | CustomToolCall):
                latest[item.call_id] = index
            elif isinstance(item, FunctionCallOutput | CustomToolCallOutput):
                if item.call_id in latest:
                    found[latest[item.call_id]] = (index, item)
                elif self._was_called(item.call_id):
                    self.changes_earlier = True
        return found

    def _was_called(self, call_id: str) -> bool:
        step: Transcript | None = self._base
        while step is not None:
            if call_id in step.called:
                return True
            step = step.parent
        return False

    def build(self) -> None:
        for index, item in enumerate(self._items, self._base.num_items):
            if self._is_leading:
                self._is_leading = self._lead(index, item)
                if self._is_leading:
                    continue
            self._add(index, item)

    def snapshot(self) -> Transcript:
        message = self._assistant
        return Transcript(
            parent=self._base,
            piece=b",".join(map(_encode, self.messages)),
            num_items=self._base.num_items + len(self._items),
            leading=tuple(self.leading),
            is_leading=self._is_leading,
            called=frozenset(self._called),
            include_reasoning=self._base.include_reasoning,
            _open=None if message is None else _Open(message, tuple(self._keys)),
        )

    def _lead(self, index: int, item: Item) -> bool:
        """Whether the item still belongs to the system message, which then has its text."""
        if isinstance(item, OpaqueItem):
            return True
        if not isinstance(item, Message) or item.role not in ("system", "developer"):
            return False
        for n, part in enumerate(item.content):
            if isinstance(part, OpaquePart):
                raise _unsupported(part, f"input[{index}].content[{n}]")
        self.leading.append(item.text)
        return True

    def _add(self, index: int, item: Item) -> None:
        match item:
            case Message(role="assistant"):
                self._add_assistant_text(item, index)
            case Message():
                self.flush()
                self.messages.append({"role": "user", "content": _content(item, index)})
            case FunctionCall():
                self._add_call(index, item, item.arguments or "{}")
            case CustomToolCall():
                self._add_call(index, item, _encode({CUSTOM_INPUT: item.input}).decode())
            case FunctionCallOutput() | CustomToolCallOutput():
                self._check_called(index, item.call_id)
            case Reasoning():
                self._add_reasoning(item)
            case OpaqueItem():
                pass  # nothing a chat could say instead

    def _open_assistant(self) -> dict[str, Any]:
        if self._assistant is None:
            self._assistant = {"role": "assistant", "content": None}
        return self._assistant

    def _add_assistant_text(self, item: Message, index: int) -> None:
        places = (f"input[{index}].content[{n}]" for n in range(len(item.content)))
        text = "".join(map(_assistant_text, item.content, places))
        message = self._open_assistant()
        if message["content"]:
            # Two messages in a row; after calls the text still belongs to the same turn.
            text = f"{message['content']}\n\n{text}"
        message["content"] = text

    def _add_call(self, index: int, item: FunctionCall | CustomToolCall, arguments: str) -> None:
        self._called.add(item.call_id)
        call = {
            "id": item.call_id,
            "type": "function",
            "function": {"name": item.name, "arguments": arguments},
        }
        self._open_assistant().setdefault("tool_calls", []).append(call)
        self._keys.append(index)

    def _add_reasoning(self, item: Reasoning) -> None:
        text = "".join(item.content) or "".join(item.summary)
        if self._base.include_reasoning and text:
            self._open_assistant()["reasoning_content"] = text

    def _check_called(self, index: int, call_id: str) -> None:
        if call_id not in self._called and not self._was_called(call_id):
            raise ApiError(
                f"no tool call with call_id {call_id[:100]!r} comes before its output",
                code="invalid_value",
                param=f"input[{index}].call_id",
            )
        self.flush()

    def flush(self) -> None:
        """Close the assistant message: its calls' outputs follow it at once."""
        message, self._assistant = self._assistant, None
        keys, self._keys = self._keys, []
        if message is None:
            return
        calls = message.get("tool_calls", [])
        if not calls and not message["content"]:
            return  # reasoning alone: a chat has no place for it
        self.messages.append(message)
        images: list[dict[str, Any]] = []
        for call, key in zip(calls, keys, strict=True):
            index, output = self._outputs.get(key, (0, None))
            shown = [] if output is None else _shown(output, f"input[{index}].output")
            text = NO_OUTPUT if output is None else output.output
            if shown:
                text = text or IMAGE_FOLLOWS
                images += [{"type": "text", "text": f"Output of {call['id']}:"}, *shown]
            self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})
        if images:
            self.messages.append({"role": "user", "content": images})


class _WireImage(msgspec.Struct):
    image_url: str
    detail: str | None = None


class _WireRefusal(msgspec.Struct):
    refusal: str


def _assistant_text(part: TextPart | OpaquePart, where: str) -> str:
    if isinstance(part, TextPart):
        return part.text
    if part.type != "refusal":
        raise _unsupported(part, where)
    return msgspec.json.decode(part.raw, type=_WireRefusal).refusal


def _shown(item: Output, where: str) -> list[dict[str, Any]]:
    """The parts of a tool's output that are more than text, as a user message has them."""
    return [
        _part(part, f"{where}[{n}]")
        for n, part in enumerate(item.parts)
        if isinstance(part, OpaquePart)
    ]


def _content(item: Message, index: int) -> str | list[dict[str, Any]]:
    if all(isinstance(part, TextPart) for part in item.content):
        return item.text
    return [_part(part, f"input[{index}].content[{n}]") for n, part in enumerate(item.content)]


def _part(part: TextPart | OpaquePart, where: str) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if part.type == "input_image":
        try:
            image = msgspec.json.decode(part.raw, type=_WireImage)
        except msgspec.ValidationError as error:
            raise ApiError(
                f"{where}: only images given by URL (also data URLs) are supported",
                code="unsupported_content",
                param=f"{where}.image_url",
            ) from error
        url = {"url": image.image_url}
        return {
            "type": "image_url",
            "image_url": url | ({"detail": image.detail} if image.detail else {}),
        }
    raise _unsupported(part, where)


def _unsupported(part: OpaquePart, where: str) -> ApiError:
    return ApiError(
        f"{where} is of type {part.type!r}, which this model's server cannot take",
        code="unsupported_content",
        param=f"{where}.type",
    )
