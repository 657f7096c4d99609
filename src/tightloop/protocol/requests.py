"""Requests of the Responses API, as typed values.

Unknown fields, tool types and item types are kept or ignored, never rejected; fields that this
package acts on are checked, and a bad one raises ``ApiError`` naming it in ``param``.
"""

from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from tightloop.protocol.items import Item


class FunctionTool(Struct, frozen=True):
    """A tool called with JSON arguments; ``parameters`` is a JSON schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class CustomTool(Struct, frozen=True):
    """A tool called with free text; ``grammar`` is the definition of its Lark grammar, if any."""

    name: str
    description: str = ""
    grammar: str | None = None


class OpaqueTool(Struct, frozen=True):
    """A tool type this package does not interpret (``web_search``, ``namespace``, ...)."""

    type: str
    raw: Raw


Tool = FunctionTool | CustomTool | OpaqueTool

ToolChoice = Literal["auto", "none", "required"] | str
"""``auto``, ``none``, ``required``, or the name of the one tool that must be called."""


class ResponseRequest(Struct, frozen=True):
    """``POST /v1/responses`` or a ``response.create`` event, decoded and checked.

    ``raw_tools`` and ``echo`` hold what the Response object must echo, as it came.
    ``stream_id`` names a lane and ``generate`` False asks for a prewarm; WebSocket only.
    """

    model: str
    input: tuple[Item, ...]
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    stream: bool = False
    store: bool = True
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    max_output_tokens: int | None = None
    generate: bool = True
    stream_id: str | None = None
    wants_timing: bool = False
    echo: dict[str, Any] = msgspec.field(default_factory=dict)
