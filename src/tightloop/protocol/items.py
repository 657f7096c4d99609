"""Items of a conversation, as the Responses API writes them.

Known item types become frozen structs; any other type is kept as the bytes it came in
(``OpaqueItem``), so that a new client's items pass through untouched and are never rejected.

Decoding has a fast path (the whole list in one typed pass) and a slow one (item by item, for
unknown types, messages without ``type`` and content parts kept as bytes); both give the same.
Opaque bytes are copied, so that a stored item never pins the request body it came in.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from tightloop.protocol.errors import ApiError, from_validation_error

MAX_INPUT_CHARS: Final = 10_485_760
"""Longest input given as one string. Source: Open Responses specification, 2026-04-24."""


class TextPart(Struct, frozen=True, gc=False):
    """A text part of a message: ``input_text``, ``output_text`` or ``summary_text``."""

    type: str
    text: str


class OpaquePart(Struct, frozen=True):
    """A content part this package does not interpret (images, files, refusals)."""

    type: str
    raw: Raw


Part = TextPart | OpaquePart


class Message(Struct, frozen=True):
    """A message of user, assistant, system or developer."""

    role: str
    content: tuple[Part, ...]
    id: str | None = None
    phase: str | None = None

    @property
    def text(self) -> str:
        """All text parts joined."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


class FunctionCall(Struct, frozen=True, tag="function_call"):
    """The model calls a function tool; ``arguments`` is JSON text exactly as generated."""

    call_id: str
    name: str
    arguments: str
    id: str | None = None
    namespace: str | None = None


class FunctionCallOutput(Struct, frozen=True, tag="function_call_output"):
    """What a function tool gave back, as text (text parts of a part list are joined).

    ``parts`` is the whole list when it holds more than text (images), else empty.
    """

    call_id: str
    output: str
    id: str | None = None
    parts: tuple[Part, ...] = ()


class CustomToolCall(Struct, frozen=True, tag="custom_tool_call"):
    """The model calls a free-form tool; ``input`` is its text."""

    call_id: str
    name: str
    input: str
    id: str | None = None
    namespace: str | None = None


class CustomToolCallOutput(Struct, frozen=True, tag="custom_tool_call_output"):
    """What a free-form tool gave back, as text; ``parts`` as in ``FunctionCallOutput``."""

    call_id: str
    output: str
    id: str | None = None
    parts: tuple[Part, ...] = ()


class Reasoning(Struct, frozen=True):
    """A reasoning item: readable summary and, from some hosts, an encrypted body.

    ``content`` is the raw reasoning text some open-model hosts show and expect back.
    """

    summary: tuple[str, ...] = ()
    encrypted_content: str | None = None
    id: str | None = None
    content: tuple[str, ...] = ()


class Compaction(Struct, frozen=True, tag="compaction"):
    """Stands for a part of the conversation that was summed up; see ``compaction``."""

    encrypted_content: str
    id: str | None = None


class OpaqueItem(Struct, frozen=True):
    """An item type this package does not interpret, kept byte for byte."""

    type: str
    raw: Raw


Item = (
    Message
    | FunctionCall
    | FunctionCallOutput
    | CustomToolCall
    | CustomToolCallOutput
    | Reasoning
    | Compaction
    | OpaqueItem
)


def user_message(text: str) -> Message:
    """A user message of one text part."""
    return Message(role="user", content=(TextPart("input_text", text),))


# ---------------------------------------------------------------------- what the wire holds


class _WirePart(Struct, gc=False):
    type: str = "input_text"
    text: str | None = None


class _WireMessage(Struct, tag="message"):
    role: str
    content: str | list[_WirePart] | None = None
    id: str | None = None
    phase: str | None = None


class _RawMessage(Struct):
    role: str
    content: list[Raw]
    id: str | None = None
    phase: str | None = None


class _WireFunctionOutput(Struct, tag="function_call_output"):
    call_id: str
    output: str | list[Raw]
    id: str | None = None


class _WireCustomOutput(Struct, tag="custom_tool_call_output"):
    call_id: str
    output: str | list[Raw]
    id: str | None = None


class _WireReasoning(Struct, tag="reasoning"):
    summary: list[_WirePart] | None = None
    encrypted_content: str | None = None
    id: str | None = None
    content: list[_WirePart] | None = None


class _Peek(Struct):
    type: str | None = None
    role: Any = None


_Wire = (
    FunctionCall
    | _WireFunctionOutput
    | CustomToolCall
    | _WireCustomOutput
    | _WireMessage
    | _WireReasoning
    | Compaction
)
_KNOWN_TYPES: Final = frozenset(
    {
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "compaction",
    }
)
_TEXT_PARTS: Final = frozenset({"input_text", "output_text", "summary_text", "text"})

_wires: Final = msgspec.json.Decoder(list[_Wire])
_wire: Final = msgspec.json.Decoder(_Wire)
_wire_message: Final = msgspec.json.Decoder(_WireMessage)
_raw_message: Final = msgspec.json.Decoder(_RawMessage)
_raw_list: Final = msgspec.json.Decoder(list[Raw])
_peek: Final = msgspec.json.Decoder(_Peek)
_part: Final = msgspec.json.Decoder(_WirePart)
_string: Final = msgspec.json.Decoder(str)


# ---------------------------------------------------------------------- wire -> items


def decode_input(value: str | bytes | Raw | list[Any]) -> tuple[Item, ...]:
    """The items of an ``input`` field: JSON bytes of it, or its already decoded value.

    A ``str`` argument is the input text itself, not JSON, and becomes one user message.
    Raises ``ApiError`` 400 whose ``param`` is a path such as ``input[3].call_id``.
    """
    if isinstance(value, str):
        return (_input_text(value),)
    if isinstance(value, list):
        return tuple(
            _decode_one(_encoded(entry, n), f"input[{n}]") for n, entry in enumerate(value)
        )
    start = bytes(memoryview(value)[:64]).lstrip()[:1]
    if start == b'"':
        return (_input_text(_checked(_string, value, "input")),)
    if start != b"[":
        raise ApiError(
            "input must be a string or a list of items", code="invalid_type", param="input"
        )
    return _decode_all(value)


def decode_item(raw: bytes | Raw | dict[str, Any], *, where: str = "item") -> Item:
    """One item. Raises ``ApiError`` 400 with a ``param`` that starts with ``where``."""
    return _decode_one(_encoded(raw) if isinstance(raw, dict) else raw, where)


def item_from_wire(item: dict[str, Any]) -> Item:
    """The item in a decoded event or Response object; ``decode_item`` by its client-side name."""
    return decode_item(item)


def _input_text(text: str) -> Message:
    if len(text) > MAX_INPUT_CHARS:
        raise ApiError(
            f"input is {len(text)} characters long, the limit is {MAX_INPUT_CHARS}",
            code="string_above_max_length",
            param="input",
        )
    return user_message(text)


def _encoded(value: object, index: int | None = None) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        where = "item" if index is None else f"input[{index}]"
        raise ApiError(f"{where} is not JSON: {error}", param=where) from error


def _decode_all(value: bytes | Raw) -> tuple[Item, ...]:
    try:
        wires = _wires.decode(value)
    except msgspec.ValidationError:
        pass  # something the fast path does not know; the slow path says what
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise from_validation_error(error, "input") from error
    else:
        with suppress(msgspec.ValidationError):  # in a part of an output: as above
            items = [_from_wire(wire) for wire in wires]
            if None not in items:
                return tuple(item for item in items if item is not None)
    raws = _checked(_raw_list, value, "input")
    return tuple(_decode_one(raw, f"input[{n}]") for n, raw in enumerate(raws))


def _checked(decoder: "msgspec.json.Decoder[Any]", raw: bytes | Raw, where: str) -> Any:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise from_validation_error(error, where) from error


def _decode_one(raw: bytes | Raw, where: str) -> Item:
    try:
        wire: Any = _wire.decode(raw)
    except msgspec.ValidationError as error:
        peek = _checked(_peek, raw, where)
        if peek.type is None:
            if peek.role is None:
                raise ApiError(
                    f"{where}.type is missing: an item has a type, or at least a role",
                    code="missing_required_parameter",
                    param=f"{where}.type",
                ) from error
            wire = _checked(_wire_message, raw, where)
        elif peek.type not in _KNOWN_TYPES:
            return OpaqueItem(peek.type, _owned(raw))
        else:
            raise from_validation_error(error, where) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise from_validation_error(error, where) from error
    try:
        item = _from_wire(wire)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise from_validation_error(error, f"{where}.output") from error
    return _message_with_opaque_parts(raw, where) if item is None else item


def _from_wire(wire: Any) -> Item | None:
    """The item, or None for a message that has parts to be kept as bytes."""
    kind = type(wire)
    if kind is _WireMessage:
        return _message(wire)
    if kind is _WireFunctionOutput:
        return FunctionCallOutput(wire.call_id, *_output(wire.output, wire.id))
    if kind is _WireCustomOutput:
        return CustomToolCallOutput(wire.call_id, *_output(wire.output, wire.id))
    if kind is _WireReasoning:
        return Reasoning(
            summary=_texts(wire.summary),
            encrypted_content=wire.encrypted_content or None,
            id=wire.id,
            content=_texts(wire.content),
        )
    item: Item = wire
    return item


def _message(wire: _WireMessage) -> Message | None:
    content = wire.content
    if content is None:
        return Message(wire.role, (), wire.id, wire.phase)
    if isinstance(content, str):
        kind = "output_text" if wire.role == "assistant" else "input_text"
        return Message(wire.role, (TextPart(kind, content),), wire.id, wire.phase)
    parts: list[Part] = []
    for part in content:
        if part.type not in _TEXT_PARTS or part.text is None:
            return None
        parts.append(TextPart(part.type, part.text))
    return Message(wire.role, tuple(parts), wire.id, wire.phase)


def _message_with_opaque_parts(raw: bytes | Raw, where: str) -> Message:
    message = _checked(_raw_message, raw, where)
    parts: list[Part] = []
    for n, raw_part in enumerate(message.content):
        place = f"{where}.content[{n}]"
        part = _checked(_part, raw_part, place)
        if part.type not in _TEXT_PARTS:
            parts.append(OpaquePart(part.type, raw_part.copy()))
        elif part.text is None:
            raise ApiError(
                f"{place}.text is missing in a part of type {part.type!r}",
                code="missing_required_parameter",
                param=f"{place}.text",
            )
        else:
            parts.append(TextPart(part.type, part.text))
    return Message(message.role, tuple(parts), message.id, message.phase)


def _texts(parts: list[_WirePart] | None) -> tuple[str, ...]:
    return tuple(part.text or "" for part in parts or ())


def _output(
    output: str | list[Raw], item_id: str | None
) -> tuple[str, str | None, tuple[Part, ...]]:
    """Text, id and, if there is more than text, all parts of a tool output."""
    if isinstance(output, str):
        return output, item_id, ()
    parts = tuple(_output_part(raw) for raw in output)
    text = "".join(part.text for part in parts if isinstance(part, TextPart))
    is_text = all(isinstance(part, TextPart) for part in parts)
    return text, item_id, () if is_text else parts


def _output_part(raw: Raw) -> Part:
    part = _part.decode(raw)
    if part.text is None:
        return OpaquePart(part.type, raw.copy())
    return TextPart(part.type, part.text)


def _owned(raw: bytes | Raw) -> Raw:
    return raw.copy() if isinstance(raw, Raw) else Raw(bytes(raw))


# ---------------------------------------------------------------------- items -> wire


def encode_item(item: Item) -> dict[str, Any]:
    """The item as a client sends it back: a dict of JSON values, absent fields left out.

    ``item_from_wire(encode_item(item)) == item``, but for the spacing of opaque bytes.
    """
    match item:
        case Message():
            return _message_fields(item, [_encode_part(part) for part in item.content])
        case FunctionCallOutput() | CustomToolCallOutput():
            return _encode_output(item, [_encode_part(part) for part in item.parts])
        case FunctionCall() | CustomToolCall() | Compaction():
            fields: dict[str, Any] = msgspec.to_builtins(item)
            return _without_none(fields)
        case Reasoning():
            return _encode_reasoning(item)
        case OpaqueItem():
            opaque: dict[str, Any] = msgspec.json.decode(item.raw)
            return opaque


def encode_items(items: Iterable[Item]) -> bytes:
    """A JSON list of items as ``encode_item`` makes them, with opaque bytes left as they came.

    They may hold what JSON allows and no decoder here does: numbers of any size, any depth.
    """
    return msgspec.json.encode([_with_raw(item) for item in items])


def _with_raw(item: Item) -> dict[str, Any] | Raw:
    if isinstance(item, OpaqueItem):
        return item.raw
    if isinstance(item, Message):
        return _message_fields(item, _raw_parts(item.content))
    if isinstance(item, FunctionCallOutput | CustomToolCallOutput):
        return _encode_output(item, _raw_parts(item.parts))
    return encode_item(item)


def _raw_parts(parts: Iterable[Part]) -> list[Any]:
    return [part.raw if isinstance(part, OpaquePart) else _encode_part(part) for part in parts]


def _encode_output(
    item: FunctionCallOutput | CustomToolCallOutput, parts: list[Any]
) -> dict[str, Any]:
    is_custom = isinstance(item, CustomToolCallOutput)
    fields: dict[str, Any] = {
        "type": "custom_tool_call_output" if is_custom else "function_call_output",
        "call_id": item.call_id,
        "output": parts or item.output,
        "id": item.id,
    }
    return _without_none(fields)


def _message_fields(item: Message, content: list[Any]) -> dict[str, Any]:
    return _without_none(
        {
            "type": "message",
            "id": item.id,
            "role": item.role,
            "content": content,
            "phase": item.phase,
        }
    )


def _encode_reasoning(item: Reasoning) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "type": "reasoning",
        "id": item.id,
        "summary": [{"type": "summary_text", "text": text} for text in item.summary],
        "encrypted_content": item.encrypted_content,
    }
    if item.content:
        wire["content"] = [{"type": "reasoning_text", "text": text} for text in item.content]
    return _without_none(wire)


def _encode_part(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": part.type, "text": part.text}
    opaque: dict[str, Any] = msgspec.json.decode(part.raw)
    return opaque


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}
