"""What shape a message must have: ``text.format`` of a request, and ``response_format`` of a chat."""

from typing import Any, Literal

from msgspec import Struct

from tightloop.protocol.errors import ApiError


class OutputFormat(Struct, frozen=True):
    """The shape of every assistant message of a response; plain text has no ``OutputFormat``.

    ``schema`` is a JSON schema, None for ``json_object`` (any JSON object). ``strict`` None is
    left to the engine: those that can constrain decoding always do.
    """

    kind: Literal["json_object", "json_schema"]
    schema: dict[str, Any] | None = None
    name: str = ""
    strict: bool | None = None


def decode_output_format(value: object, where: str = "text.format") -> OutputFormat | None:
    """The format in a decoded JSON value; None for plain text. Raises ``ApiError`` with a path."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _bad(f"{where} must be an object", where, "invalid_type")
    kind = value.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return OutputFormat("json_object")
    if kind != "json_schema":
        known = "text, json_object or json_schema"
        raise _bad(f"{where}.type must be {known}, got {str(kind)[:100]!r}", f"{where}.type")
    # Chat Completions nests what Responses writes beside the type.
    inner = value.get("json_schema")
    place = f"{where}.json_schema" if isinstance(inner, dict) else where
    fields = inner if isinstance(inner, dict) else value
    schema, name, strict = fields.get("schema"), fields.get("name"), fields.get("strict")
    if not isinstance(schema, dict):
        raise _bad(f"{place}.schema must be a JSON schema object", f"{place}.schema")
    if not isinstance(name, str) or not name:
        raise _bad(f"{place}.name must be a name for the schema", f"{place}.name")
    return OutputFormat("json_schema", schema, name, strict if isinstance(strict, bool) else None)


def _bad(message: str, param: str, code: str = "invalid_value") -> ApiError:
    return ApiError(message, code=code, param=param)
