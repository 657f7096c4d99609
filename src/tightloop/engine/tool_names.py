"""A model calls a tool by its name, so each name may mean one tool only."""

from collections.abc import Iterable

from tightloop.engine.interface import EngineError, GenerationRequest
from tightloop.protocol.requests import CustomTool, FunctionTool, Tool


def offered(request: GenerationRequest) -> tuple[FunctionTool | CustomTool, ...]:
    """The tools of ``request`` that can be called, as ``distinct`` gives them.

    Raises ``EngineError`` (``invalid_value``) also when a call is demanded that cannot be made.
    """
    tools = distinct(request.tools)
    choice = request.tool_choice
    if choice in ("auto", "none"):
        return tools
    if not tools:
        raise EngineError(
            f"tool_choice is {choice!r}, but no function or custom tool is offered; offer one, or "
            "leave tool_choice out",
            code="invalid_value",
        )
    if choice != "required" and all(tool.name != choice for tool in tools):
        raise EngineError(
            f"tool_choice names {choice!r}, which is not among the tools", code="invalid_value"
        )
    return tools


def distinct(tools: Iterable[Tool]) -> tuple[FunctionTool | CustomTool, ...]:
    """The tools that can be called, each name once.

    A tool that is offered again, as clients do that repeat theirs with every request, is as it was
    told last, in its first place. Raises ``EngineError`` (``invalid_value``) for one name in two
    namespaces: a call would not say which is meant, and the wrong one might be run.
    """
    named: dict[str, FunctionTool | CustomTool] = {}
    for tool in tools:
        if not isinstance(tool, FunctionTool | CustomTool):
            continue
        other = named.get(tool.name)
        if other is not None and other.namespace != tool.namespace:
            raise EngineError(
                f"two tools are called {tool.name!r}, one {_place(other.namespace)} and one "
                f"{_place(tool.namespace)}; rename or leave out one of them",
                code="invalid_value",
            )
        named[tool.name] = tool
    return tuple(named.values())


def _place(namespace: str | None) -> str:
    return "outside any namespace" if namespace is None else f"in the namespace {namespace!r}"
