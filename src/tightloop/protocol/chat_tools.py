"""Tools and tool choice of a Chat Completions request, in its own nested form."""

from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from tightloop.protocol.errors import ApiError, from_validation_error
from tightloop.protocol.tools import (
    CustomTool,
    FunctionTool,
    OpaqueTool,
    Tool,
    ToolChoice,
    tool_key,
)


class _Grammar(Struct):
    definition: str
    syntax: Literal["lark", "regex"] = "lark"


class _Format(Struct):
    type: str
    grammar: _Grammar | None = None


class _Function(Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Custom(Struct):
    name: str
    description: str | None = None
    format: _Format | None = None


class _Tool(Struct):
    type: str = "function"
    function: dict[str, Any] | None = None
    custom: dict[str, Any] | None = None


_dicts: Final = msgspec.json.Decoder(list[dict[str, Any]])


def decode_chat_tools(raw: bytes) -> tuple[Tool, ...]:
    """The tools in a JSON list, or in ``null``; unknown types become ``OpaqueTool``.

    Raises ``ApiError`` with a ``param`` such as ``tools[2].function.name``.
    """
    if raw == b"null":
        return ()
    try:
        dicts = _dicts.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise from_validation_error(error, "tools") from error
    return tuple(_tool(fields, f"tools[{n}]") for n, fields in enumerate(dicts))


def _tool(fields: dict[str, Any], where: str) -> Tool:
    tool: _Tool = _convert(fields, _Tool, where)
    if tool.type == "function":
        function: _Function = _described(tool.function, _Function, f"{where}.function")
        return FunctionTool(
            function.name, function.description or "", function.parameters, function.strict
        )
    if tool.type == "custom":
        place = f"{where}.custom"
        custom: _Custom = _described(tool.custom, _Custom, place)
        grammar = _grammar(custom.format, f"{place}.format.grammar")
        return CustomTool(
            custom.name,
            custom.description or "",
            grammar.definition if grammar else None,
            syntax=grammar.syntax if grammar else "lark",
        )
    return OpaqueTool(tool.type, Raw(msgspec.json.encode(fields)))


def _described(fields: dict[str, Any] | None, kind: type[Any], where: str) -> Any:
    if fields is None:
        raise _missing(f"{where} is missing: tools of its type are described there", where)
    described = _convert(fields, kind, where)
    if not described.name:
        raise _bad(f"{where}.name is empty", f"{where}.name")
    return described


def _grammar(given: _Format | None, where: str) -> _Grammar | None:
    if given is None or given.type != "grammar":
        return None
    if given.grammar is None:
        raise _missing(f"{where} is missing in a format of type grammar", where)
    return given.grammar


def _convert(fields: dict[str, Any], kind: type[Any], where: str) -> Any:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise from_validation_error(error, where) from error


# ---------------------------------------------------------------------- tool choice


def apply_chat_choice(
    choice: str | dict[str, Any] | None, tools: tuple[Tool, ...]
) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The tools that may be used, and how. Raises ``ApiError`` naming the part at fault."""
    if choice is None:
        return tools, "auto"
    if isinstance(choice, str):
        return tools, _mode(choice, "tool_choice", ("auto", "none", "required"), tools)
    kind = choice.get("type")
    if kind == "allowed_tools":
        return _allowed(choice.get(kind), tools)
    if kind not in ("function", "custom"):
        known = "function, custom or allowed_tools"
        raise _bad(f"tool_choice.type must be {known}, got {str(kind)[:100]!r}", "tool_choice.type")
    place = f"tool_choice.{kind}.name"
    inner = choice.get(kind)
    name = inner.get("name") if isinstance(inner, dict) else None
    if not isinstance(name, str) or not name:
        raise _bad(f"{place} must be the name of a tool", place)
    if (kind, name) not in map(tool_key, tools):
        raise _bad(f"{place} is {name[:100]!r}, but no {kind} tool of that name is given", place)
    return tools, name


def _mode(choice: object, where: str, known: tuple[str, ...], tools: tuple[Tool, ...]) -> str:
    if not isinstance(choice, str) or choice not in known:
        expected = f"{', '.join(known[:-1])} or {known[-1]}"
        raise _bad(f"{where} must be {expected}, got {str(choice)[:100]!r}", where)
    if choice == "required" and not tools:
        raise _bad(f"{where} is 'required', but no tools are given", where)
    return choice


def _allowed(inner: object, tools: tuple[Tool, ...]) -> tuple[tuple[Tool, ...], ToolChoice]:
    place = "tool_choice.allowed_tools"
    if not isinstance(inner, dict):
        raise _bad(f"{place} must be an object with mode and tools", place)
    entries = inner.get("tools")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _bad(f"{place}.tools must be a list of tools", f"{place}.tools")
    keys = {_key(entry) for entry in entries}
    allowed = tuple(tool for tool in tools if tool_key(tool) in keys)
    mode = _mode(inner.get("mode", "auto"), f"{place}.mode", ("auto", "required"), allowed)
    return allowed, mode


def _key(entry: dict[str, Any]) -> tuple[str, str]:
    kind = str(entry.get("type"))
    inner = entry.get(kind)
    return kind, str(inner.get("name") or "") if isinstance(inner, dict) else ""


def _bad(message: str, param: str) -> ApiError:
    return ApiError(message, code="invalid_value", param=param)


def _missing(message: str, param: str) -> ApiError:
    return ApiError(message, code="missing_required_parameter", param=param)
