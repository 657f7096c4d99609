"""Messages of a Chat Completions request, decoded straight into items.

A client of this API sends its whole history again with every turn, so there is no way through
the JSON of another form: one typed pass over the body, then one item per message, call or output.
What an assistant said comes back as the items that ``ChatStream`` made of it (reasoning, text, calls),
so that the next turn renders to the same tokens and finds them computed.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from tightloop.protocol.errors import ApiError, from_validation_error
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OpaquePart,
    Part,
    Reasoning,
    TextPart,
)

ROLES: Final = "system, developer, user, assistant, tool or function"


class WirePart(Struct, gc=False):
    """A content part; other keys are ignored."""

    type: str = "text"
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    file: Any = None
    input_audio: Any = None


class _Function(Struct, gc=False):
    name: str
    arguments: str = ""


class _Custom(Struct, gc=False):
    name: str
    input: str = ""


class WireCall(Struct):
    """A tool call of an assistant message."""

    id: str
    type: str | None = None
    function: _Function | None = None
    custom: _Custom | None = None


class WireMessage(Struct):
    """A message of any role. ``reasoning`` is another name in use for ``reasoning_content``."""

    role: str
    content: str | list[WirePart] | None = None
    tool_calls: list[WireCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    function_call: _Function | None = None


class _RawMessage(Struct):
    content: Raw | None = None
    tool_calls: Raw | None = None


_message: Final = msgspec.json.Decoder(WireMessage)
_part: Final = msgspec.json.Decoder(WirePart)
_call: Final = msgspec.json.Decoder(WireCall)
_raw_message: Final = msgspec.json.Decoder(_RawMessage)
_raws: Final = msgspec.json.Decoder(list[Raw])
_encode: Final = msgspec.json.Encoder().encode


class History(Struct):
    """Items, and how many there were after each message.

    ``can_go_on``: what follows them can be read by itself, with the items alone.
    """

    items: tuple[Item, ...]
    ends: list[int]
    can_go_on: bool


def history_items(
    messages: list[WireMessage], known: Sequence[Item] = (), first: int = 0
) -> History:
    """The items of a conversation, oldest first.

    ``known`` are those of the ``first`` messages, which are not in the list. Raises ``ApiError`` 400 with a ``param`` such as ``messages[3].tool_call_id``; among its
    reasons is a tool message whose call is not in a message before it.
    """
    history = _History(known)
    ends: list[int] = []
    for index, message in enumerate(messages, first):
        history.add(message, index)
        ends.append(len(history.items))
    return History(tuple(history.items), ends, not history.has_nameless)


class _History:
    """Items so far, and the calls among them that outputs may belong to."""

    def __init__(self, known: Sequence[Item]) -> None:
        self.items: list[Item] = list(known)
        self._is_custom: dict[str, bool] = {}  # by call id
        for item in known:
            kind = type(item)
            if kind is FunctionCall or kind is CustomToolCall:
                self._is_custom[item.call_id] = kind is CustomToolCall  # type: ignore[union-attr]
        self._nameless: dict[str, str] = {}  # the latest id of a call in the old form, by name

    @property
    def has_nameless(self) -> bool:
        """Whether there are calls without an id of their own."""
        return bool(self._nameless)

    def add(self, message: WireMessage, index: int) -> None:
        role = message.role
        where = f"messages[{index}]"
        if role == "assistant":
            self._assistant(message, where)
            if message.function_call is not None:
                self._add_nameless(message.function_call, f"call_function_{index}")
        elif role == "tool":
            self._output(message, where)
        elif role == "function":
            self._nameless_output(message, where)
        elif role in ("user", "system", "developer"):
            self.items.append(Message(role, _given_parts(message.content, where)))
        else:
            raise _bad(f"{where}.role must be {ROLES}, got {role[:100]!r}", f"{where}.role")

    def _assistant(self, message: WireMessage, where: str) -> None:
        reasoning = message.reasoning_content or message.reasoning
        if isinstance(reasoning, str) and reasoning:
            self.items.append(Reasoning((reasoning,)))
        parts = _spoken_parts(message, where)
        if parts:
            self.items.append(Message("assistant", parts))
        for index, call in enumerate(message.tool_calls or ()):
            self._add_call(call, f"{where}.tool_calls[{index}]")

    def _add_call(self, call: WireCall, where: str) -> None:
        custom, function = call.custom, call.function
        if custom is not None and call.type in (None, "custom"):
            self.items.append(CustomToolCall(call.id, custom.name, custom.input))
        elif function is not None and call.type in (None, "function"):
            self.items.append(FunctionCall(call.id, function.name, function.arguments))
        else:
            reason = "must have a function or, with type custom, a custom object"
            raise _bad(f"{where} {reason}; its type is {str(call.type)[:100]!r}", where)
        self._is_custom[call.id] = custom is not None and call.type != "function"

    def _add_nameless(self, call: _Function, call_id: str) -> None:
        self._nameless[call.name] = call_id
        self.items.append(FunctionCall(call_id, call.name, call.arguments))

    def _output(self, message: WireMessage, where: str) -> None:
        place = f"{where}.tool_call_id"
        call_id = message.tool_call_id
        if call_id is None:
            raise ApiError(
                f"{place} is missing: it names the tool call that this is the output of",
                code="missing_required_parameter",
                param=place,
            )
        is_custom = self._is_custom.get(call_id)
        if is_custom is None:
            raise ApiError(
                f"{place} is {call_id[:200]!r}, but no assistant message before it made that call; "
                "send that message with its tool_calls too",
                code="invalid_request",
                param=place,
            )
        kind = CustomToolCallOutput if is_custom else FunctionCallOutput
        self.items.append(kind(call_id, *_output_text(message.content, where)))

    def _nameless_output(self, message: WireMessage, where: str) -> None:
        """The old form has no call ids: an output belongs to the latest call of its function."""
        call_id = self._nameless.get(message.name or "")
        if call_id is None:
            raise ApiError(
                f"{where} is the output of the function {(message.name or '')[:200]!r}, but no "
                "assistant message before it has a function_call of it",
                code="invalid_request",
                param=f"{where}.name",
            )
        output, item_id, parts = _output_text(message.content, where)
        self.items.append(FunctionCallOutput(call_id, output, item_id, parts))


# ---------------------------------------------------------------------- content


def _given_parts(content: str | list[WirePart] | None, where: str) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (TextPart("input_text", content),)
    return tuple(_part_of(part, f"{where}.content[{n}]") for n, part in enumerate(content or ()))


def _spoken_parts(message: WireMessage, where: str) -> tuple[Part, ...]:
    """Text and refusals of an assistant; other kinds (thoughts of other hosts) are passed over."""
    content = message.content
    parts: list[Part] = []
    if isinstance(content, str):
        if content:
            parts.append(TextPart("output_text", content))
    else:
        for n, part in enumerate(content or ()):
            if part.type == "text":
                parts.append(TextPart("output_text", _text(part, f"{where}.content[{n}]")))
            elif part.type == "refusal" and part.refusal:
                parts.append(_refusal(part.refusal))
    if message.refusal:
        parts.append(_refusal(message.refusal))
    return tuple(parts)


def _output_text(
    content: str | list[WirePart] | None, where: str
) -> tuple[str, None, tuple[Part, ...]]:
    """Text, no id, and all parts if there is more than text; as ``FunctionCallOutput`` has them."""
    if isinstance(content, str):
        return content, None, ()
    parts = _given_parts(content, where)
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    return "".join(texts), None, () if len(texts) == len(parts) else parts


def _part_of(part: WirePart, where: str) -> Part:
    kind = part.type
    if kind == "text":
        return TextPart("input_text", _text(part, where))
    if kind == "image_url":
        return _image(part.image_url, where)
    if kind == "file" and isinstance(part.file, dict):
        return _opaque("input_file", part.file)
    if kind == "input_audio" and isinstance(part.input_audio, dict):
        return _opaque("input_audio", {"input_audio": part.input_audio})
    known = "text, image_url, file or input_audio, with the content under the same name"
    raise _bad(f"{where}.type must be {known}; got {kind[:100]!r}", f"{where}.type")


def _text(part: WirePart, where: str) -> str:
    if part.text is None:
        raise ApiError(
            f"{where}.text is missing in a part of type text",
            code="missing_required_parameter",
            param=f"{where}.text",
        )
    return part.text


def _image(value: object, where: str) -> OpaquePart:
    """In the form of the Responses API, which is what engines know. A bare URL is tolerated."""
    given = value if isinstance(value, dict) else {"url": value}
    url, detail = given.get("url"), given.get("detail")
    if not isinstance(url, str) or not url:
        raise _bad(f"{where}.image_url.url must be a URL or a data URL", f"{where}.image_url.url")
    fields = {"image_url": url, "detail": detail if isinstance(detail, str) else "auto"}
    return _opaque("input_image", fields)


def _refusal(text: str) -> OpaquePart:
    return _opaque("refusal", {"refusal": text})


def _opaque(kind: str, fields: dict[str, Any]) -> OpaquePart:
    return OpaquePart(kind, Raw(_encode({"type": kind, **fields})))


def _bad(message: str, param: str) -> ApiError:
    return ApiError(message, code="invalid_value", param=param)


# ---------------------------------------------------------------------- what is wrong where


def explain(raws: list[Raw]) -> None:
    """Raise the ``ApiError`` of the first message that cannot be decoded, naming the field.

    The typed pass over the whole body does not say which element of a list was at fault.
    """
    for index, raw in enumerate(raws):
        where = f"messages[{index}]"
        try:
            _message.decode(raw)
        except msgspec.ValidationError as error:
            _explain_inner(raw, where)
            raise from_validation_error(error, where) from error


def _explain_inner(raw: Raw, where: str) -> None:
    try:
        inner = _raw_message.decode(raw)
    except msgspec.ValidationError:
        return
    for value, decoder, name in (
        (inner.content, _part, "content"),
        (inner.tool_calls, _call, "tool_calls"),
    ):
        if value is None or bytes(value)[:1] != b"[":
            continue
        for n, element in enumerate(_raws.decode(value)):
            try:
                decoder.decode(element)
            except msgspec.ValidationError as error:
                raise from_validation_error(error, f"{where}.{name}[{n}]") from error
