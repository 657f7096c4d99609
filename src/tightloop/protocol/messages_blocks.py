"""Content blocks of the Anthropic Messages API, and the items they stand for.

A client of this dialect sends its whole history with every request, so the usual one is decoded in
one typed pass; only a conversation with a block of unknown shape is taken apart block by block.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from tightloop.protocol.errors import ApiError, from_validation_error
from tightloop.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OpaquePart,
    Part,
    Reasoning,
    TextPart,
)

ERROR_MARK: Final = "[tool error]\n"
"""Put in front of the text of a tool result with ``is_error``: items have no such field."""

_ROLES: Final = {
    "user": ("user", "input_text"),
    "assistant": ("assistant", "output_text"),
    "system": ("developer", "input_text"),
    "developer": ("developer", "input_text"),
}
_IN_RESULTS: Final = frozenset({"text", "image", "document"})
_IN_MESSAGES: Final = _IN_RESULTS | {"tool_use", "tool_result", "thinking"}


class _Source(Struct):
    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None


class _Block(Struct):
    """Any block; which fields count depends on ``type``. What is not named here is ignored."""

    type: str
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = Raw(b"{}")
    tool_use_id: str | None = None
    content: "str | list[_Block] | None" = None
    is_error: bool | None = None
    source: _Source | None = None
    thinking: str | None = None
    title: str | None = None


class _WireMessage(Struct):
    role: str
    content: str | list[_Block]


class _LooseMessage(Struct):
    role: str
    content: Raw


class _LooseResult(Struct):
    tool_use_id: str | None = None
    content: Raw = Raw(b"null")
    is_error: bool | None = None


class _Peek(Struct):
    type: str


_messages: Final = msgspec.json.Decoder(list[_WireMessage])
_raws: Final = msgspec.json.Decoder(list[Raw])
_loose_message: Final = msgspec.json.Decoder(_LooseMessage)
_loose_result: Final = msgspec.json.Decoder(_LooseResult)
_peek: Final = msgspec.json.Decoder(_Peek)
_block: Final = msgspec.json.Decoder(_Block)
_string: Final = msgspec.json.Decoder(str)


class Blocks(Struct):
    """Items, and how many there were after each message."""

    items: tuple[Item, ...]
    ends: list[int]


def decode_messages(raw: bytes | Raw, known: Sequence[Item] = (), first: int = 0) -> Blocks:
    """The items of a ``messages`` list, in the order in which they were put out.

    A text block is (part of) a message, ``tool_use`` a call, ``tool_result`` an output, ``thinking``
    reasoning; neighbouring text and image blocks of one message stay one message. Blocks of other
    types are left out. ``known`` are the items of the ``first`` messages, which are not in the list.
    Raises ``ApiError`` 400 with a ``param`` like ``messages[3].content[0].id``.
    """
    history = _History(known)
    ends: list[int] = []
    for n, message in enumerate(_decode(raw), first):
        history.add(message, f"messages[{n}]")
        ends.append(len(history.items))
    return Blocks(tuple(history.items), ends)


def _decode(raw: bytes | Raw) -> list[_WireMessage]:
    try:
        return _messages.decode(raw)
    except msgspec.ValidationError:
        pass  # a block of another type may use a name for something else; or it is really wrong
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise from_validation_error(error, "messages") from error
    loose: list[_WireMessage] = []
    for n, entry in enumerate(_checked(_raws, raw, "messages")):
        place = f"messages[{n}]"
        message = _checked(_loose_message, entry, place)
        content = _loose_content(message.content, f"{place}.content", _IN_MESSAGES)
        if content is None:
            raise ApiError(
                f"{place}.content must be a string or a list of blocks",
                code="invalid_type",
                param=f"{place}.content",
            )
        loose.append(_WireMessage(message.role, content))
    return loose


def _loose_content(raw: Raw, where: str, known: frozenset[str]) -> str | list[_Block] | None:
    """Content whose blocks of types other than ``known`` may hold anything."""
    first = bytes(memoryview(raw)[:1])
    if first == b"n":
        return None
    if first == b'"':
        text: str = _checked(_string, raw, where)
        return text
    blocks = _checked(_raws, raw, where)
    return [_loose_block(entry, f"{where}[{n}]", known) for n, entry in enumerate(blocks)]


def _loose_block(raw: Raw, place: str, known: frozenset[str]) -> _Block:
    kind = _checked(_peek, raw, place).type
    if kind not in known:
        return _Block(kind)  # keeps its place, so that the paths of the others stay true
    if kind != "tool_result":
        block: _Block = _checked(_block, raw, place)
        return block
    result = _checked(_loose_result, raw, place)
    content = _loose_content(result.content, f"{place}.content", _IN_RESULTS)
    return _Block(kind, tool_use_id=result.tool_use_id, content=content, is_error=result.is_error)


def _checked(decoder: "msgspec.json.Decoder[Any]", raw: bytes | Raw, where: str) -> Any:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise from_validation_error(error, where) from error


class _History:
    """The items so far. ``parts`` are those of the message that the next text block belongs to."""

    def __init__(self, known: Sequence[Item]) -> None:
        self.items: list[Item] = list(known)
        self._called = {item.call_id for item in known if type(item) is FunctionCall}
        self._parts: list[Part] = []

    def add(self, message: _WireMessage, where: str) -> None:
        """The items of one message."""
        if message.role not in _ROLES:
            raise ApiError(
                f"{where}.role must be user, assistant or system, got {message.role[:100]!r}",
                code="invalid_value",
                param=f"{where}.role",
            )
        role, kind = _ROLES[message.role]
        content = message.content
        if isinstance(content, str):
            self.items.append(Message(role, (TextPart(kind, content),)))
            return
        for n, block in enumerate(content):
            part = self._take(block, kind, where, n)
            if part is not None:
                self._parts.append(part)
                continue
            item = self._item(block, where, n)
            if item is not None:
                self._close(role)
                self.items.append(item)
        self._close(role)

    def _take(self, block: _Block, kind: str, where: str, n: int) -> Part | None:
        if block.type == "text":
            if not block.text:
                _required(block.text is None, where, n, "text")
                return None  # an empty block says nothing and would only split a message
            return TextPart(kind, block.text)
        return _file_part(block, f"{where}.content[{n}]")

    def _item(self, block: _Block, where: str, n: int) -> Item | None:
        if block.type == "tool_use":
            _required(block.id is None, where, n, "id")
            _required(not block.name, where, n, "name")
            call_id, name = block.id or "", block.name or ""
            self._called.add(call_id)
            return FunctionCall(call_id, name, _arguments(block.input, where, n))
        if block.type == "tool_result":
            _required(block.tool_use_id is None, where, n, "tool_use_id")
            return self._result(block, f"{where}.content[{n}]")
        if block.type == "thinking" and block.thinking:
            return Reasoning((block.thinking,))
        return None

    def _result(self, block: _Block, place: str) -> FunctionCallOutput:
        call_id = block.tool_use_id or ""
        if call_id not in self._called:
            raise ApiError(
                f"no tool_use with id {call_id[:200]!r} precedes this tool_result",
                code="invalid_request",
                param=f"{place}.tool_use_id",
            )
        mark = ERROR_MARK if block.is_error else ""
        if not isinstance(block.content, list):
            return FunctionCallOutput(call_id, mark + (block.content or ""))
        parts: list[Part] = [TextPart("input_text", mark)] if mark else []
        for n, inner in enumerate(block.content):
            if inner.type == "text":
                parts.append(TextPart("input_text", inner.text or ""))
            else:
                part = _file_part(inner, f"{place}.content[{n}]")
                parts += [] if part is None else [part]
        text = "".join([part.text for part in parts if isinstance(part, TextPart)])
        is_text = all(isinstance(part, TextPart) for part in parts)
        return FunctionCallOutput(call_id, text, parts=() if is_text else tuple(parts))

    def _close(self, role: str) -> None:
        if self._parts:
            self.items.append(Message(role, tuple(self._parts)))
            self._parts.clear()


def _required(is_missing: bool, where: str, n: int, field: str) -> None:
    if is_missing:
        param = f"{where}.content[{n}].{field}"
        raise ApiError(
            f"missing required field {param}", code="missing_required_parameter", param=param
        )


def _arguments(raw: Raw, where: str, n: int) -> str:
    """The call's input as it was written: its order of keys is part of the prompt."""
    param = f"{where}.content[{n}].input"
    if bytes(memoryview(raw)[:1]) != b"{":
        raise ApiError(f"{param} must be an object", code="invalid_type", param=param)
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise from_validation_error(error, param) from error


def _file_part(block: _Block, place: str) -> Part | None:
    """An image or document as the Responses API writes it; None for any other block."""
    if block.type not in ("image", "document"):
        return None
    source = block.source
    if source is None:
        raise ApiError(
            f"missing required field {place}.source",
            code="missing_required_parameter",
            param=f"{place}.source",
        )
    if source.type == "text" and source.data is not None:
        return TextPart("input_text", source.data)
    kind = "input_image" if block.type == "image" else "input_file"
    return OpaquePart(
        kind, Raw(msgspec.json.encode({"type": kind, **_fields(block, source, place)}))
    )


def _fields(block: _Block, source: _Source, place: str) -> dict[str, str]:
    is_image = block.type == "image"
    if source.type == "base64" and source.data is not None:
        media_type = source.media_type or ("image/png" if is_image else "application/pdf")
        url = f"data:{media_type};base64,{source.data}"
        if is_image:
            return {"detail": "auto", "image_url": url}
        return {"filename": block.title or "document.pdf", "file_data": url}
    if source.type == "url" and source.url is not None:
        if is_image:
            return {"detail": "auto", "image_url": source.url}
        return {"file_url": source.url}
    if source.type == "file" and source.file_id is not None:
        return (
            {"detail": "auto", "file_id": source.file_id}
            if is_image
            else {"file_id": source.file_id}
        )
    raise ApiError(
        f"{place}.source must be base64 with data, url with url, or file with file_id,"
        f" got type {source.type[:100]!r}",
        code="invalid_value",
        param=f"{place}.source",
    )
