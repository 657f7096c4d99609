"""Names and schemas of foreign tools, made fit for every backend. The same in, the same out."""

import hashlib
import re
from typing import Any, Final

MAX_NAME_CHARS: Final = 64
"""Source: the OpenAI API's ``^[a-zA-Z0-9_-]{1,64}$``."""
MAX_DESCRIPTION_CHARS: Final = 2_000
MAX_DEPTH: Final = 24
_DROPPED: Final = frozenset({"$schema", "$id", "$comment", "title", "examples"})
"""Say nothing about what is allowed; some hosts refuse them, and all charge for them."""
_MAPS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions"})
"""Keywords whose keys are names of the tool's own."""
_DATA: Final = frozenset({"default", "const", "enum", "required"})
"""Keywords whose values are no schemas."""


def tool_name(server: str, tool: str) -> str:
    """``mcp__SERVER__TOOL``. Where characters or length do not fit, a digest of both names tells it
    from others; so no two tools of different names ever share one."""
    plain = f"mcp__{server}__{tool}"
    name = re.sub(r"[^A-Za-z0-9_-]", "_", plain)
    if name == plain and len(name) <= MAX_NAME_CHARS:
        return name
    digest = hashlib.blake2b(f"{server}\0{tool}".encode("utf-8", "surrogatepass"), digest_size=5)
    return f"{name[: MAX_NAME_CHARS - 11]}_{digest.hexdigest()}"


def clean_description(text: str) -> str:
    """Printable, and bounded."""
    shown = "".join(char for char in text if char.isprintable() or char == "\n").strip()
    if len(shown) <= MAX_DESCRIPTION_CHARS:
        return shown
    return f"{shown[: MAX_DESCRIPTION_CHARS - 4]} ..."


def clean_schema(schema: object) -> dict[str, Any]:
    """A JSON schema of an object, without what says nothing or is not JSON schema."""
    cleaned = _cleaned(schema, MAX_DEPTH)
    if not isinstance(cleaned, dict):
        cleaned = {}
    properties = cleaned.get("properties")
    return {
        **cleaned,
        "type": "object",
        "properties": properties if isinstance(properties, dict) else {},
    }


def _cleaned(schema: object, depth: int) -> Any:
    """Everything below ``depth`` is allowed to be anything."""
    if depth == 0:
        return {}
    if isinstance(schema, list):
        return [_cleaned(one, depth - 1) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _DROPPED or key.startswith("x-"):
            continue
        if key in _MAPS and isinstance(value, dict):
            kept[key] = {name: _cleaned(one, depth - 1) for name, one in value.items()}
        else:
            kept[key] = value if key in _DATA else _cleaned(value, depth - 1)
    return kept
