"""Tools a request offers, decoded and checked; and what a Response object must echo of them."""

from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from tightloop.protocol.errors import ApiError, from_validation_error
from tightloop.protocol.items import OpaqueItem


class FunctionTool(Struct, frozen=True):
    """A tool called with JSON arguments; ``parameters`` is a JSON schema.

    ``namespace`` is set for a tool that came inside a ``namespace`` tool; calls repeat it.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    namespace: str | None = None


class CustomTool(Struct, frozen=True):
    """A tool called with free text, which ``grammar``, if any, describes.

    ``syntax`` is how the grammar is written: a Lark grammar or one regular expression.
    """

    name: str
    description: str = ""
    grammar: str | None = None
    namespace: str | None = None
    syntax: Literal["lark", "regex"] = "lark"


class OpaqueTool(Struct, frozen=True):
    """A tool type this package does not interpret (``web_search``, ``tool_search``, ...)."""

    type: str
    raw: Raw


Tool = FunctionTool | CustomTool | OpaqueTool

ToolChoice = Literal["auto", "none", "required"] | str
"""``auto``, ``none``, ``required``, or the name of the one tool that must be called."""


class DecodedTools(Struct, frozen=True):
    """The tools of one request, and the JSON list a Response object echoes for them."""

    tools: tuple[Tool, ...] = ()
    echo: Raw = Raw(b"[]")


class _WireTool(Struct):
    type: str


class _WireFunction(Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _WireCustom(Struct):
    name: str
    description: str | None = None
    format: dict[str, Any] | None = None


class _WireNamespace(Struct):
    name: str
    tools: list[dict[str, Any]]


class _WireAdditionalTools(Struct):
    tools: list[dict[str, Any]]


_tool_dicts: Final = msgspec.json.Decoder(list[dict[str, Any]])
_additional: Final = msgspec.json.Decoder(_WireAdditionalTools)


def decode_tools(raw: bytes | Raw) -> DecodedTools:
    """The tools in a JSON list; the tools of a namespace are listed one by one.

    Unknown tool types become ``OpaqueTool``. Raises ``ApiError`` with ``param`` like
    ``tools[2].name``.
    """
    try:
        dicts = _tool_dicts.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise from_validation_error(error, "tools") from error
    tools = _tools_of(dicts, "tools", None)
    return DecodedTools(tools, Raw(msgspec.json.encode([_echo(tool) for tool in dicts])))


def additional_tools(item: OpaqueItem, where: str = "input") -> tuple[Tool, ...]:
    """The tools in an ``additional_tools`` input item; empty for any other item.

    Clients that send their tools once put them there, so a server adds the tools of every such
    item in the context to those of the request. Raises ``ApiError``; ``where`` is the item's path.
    """
    if item.type != "additional_tools":
        return ()
    try:
        wire = _additional.decode(item.raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise from_validation_error(error, where) from error
    return _tools_of(wire.tools, f"{where}.tools", None)


def _tools_of(dicts: list[dict[str, Any]], where: str, namespace: str | None) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    for n, fields in enumerate(dicts):
        place = f"{where}[{n}]"
        kind = _convert(fields, _WireTool, place).type
        if kind == "namespace":
            inner = _convert(fields, _WireNamespace, place)
            tools.extend(_tools_of(inner.tools, f"{place}.tools", inner.name))
        else:
            tools.append(_tool(kind, fields, place, namespace))
    return tuple(tools)


def _tool(kind: str, fields: dict[str, Any], place: str, namespace: str | None) -> Tool:
    if kind == "function":
        function = _convert(fields, _WireFunction, place)
        return FunctionTool(
            name=_name(function.name, place),
            description=function.description or "",
            parameters=function.parameters,
            strict=function.strict,
            namespace=namespace,
        )
    if kind == "custom":
        custom = _convert(fields, _WireCustom, place)
        return CustomTool(
            name=_name(custom.name, place),
            description=custom.description or "",
            grammar=_grammar(custom.format, place),
            namespace=namespace,
            syntax=_syntax(custom.format, place),
        )
    return OpaqueTool(kind, Raw(msgspec.json.encode(fields)))


def _name(name: str, place: str) -> str:
    if not name:
        raise ApiError(f"{place}.name is empty", code="invalid_value", param=f"{place}.name")
    return name


def _grammar(format_: dict[str, Any] | None, place: str) -> str | None:
    definition = (format_ or {}).get("definition")
    if definition is not None and not isinstance(definition, str):
        raise ApiError(
            f"{place}.format.definition must be a string",
            code="invalid_type",
            param=f"{place}.format.definition",
        )
    return definition


def _syntax(format_: dict[str, Any] | None, place: str) -> Literal["lark", "regex"]:
    given = (format_ or {}).get("syntax")
    if given in (None, "lark"):
        return "lark"
    if given == "regex":
        return "regex"
    raise ApiError(
        f"{place}.format.syntax must be lark or regex, got {str(given)[:100]!r}",
        code="invalid_value",
        param=f"{place}.format.syntax",
    )


def _convert(fields: dict[str, Any], kind: type[Any], place: str) -> Any:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise from_validation_error(error, place) from error


def _echo(fields: dict[str, Any]) -> dict[str, Any]:
    """The strict form requires three keys of a function tool to be present; null is allowed."""
    if fields.get("type") != "function":
        return fields
    return {"description": None, "parameters": None, "strict": None, **fields}


def tool_key(tool: Tool) -> tuple[str, str]:
    """Kind and name as ``allowed_tools`` writes them, e.g. ``("function", "shell")``."""
    match tool:
        case FunctionTool():
            return ("function", tool.name)
        case CustomTool():
            return ("custom", tool.name)
        case OpaqueTool():
            return (tool.type, "")
