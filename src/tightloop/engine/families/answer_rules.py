"""From what a request demands of the answer to the constraint that makes it hold.

The answer's form is the one ``tool_calls`` reads::

    <think> ... </think> text <tool_call>
    {"name": "patch", "arguments": {"input": "..."}}
    </tool_call>

Nothing is constrained unless a request asks for something: then there is no ``Constraint``. Where
calls are constrained they are written with the spaces that ``tojson`` writes.
"""

import json
from typing import Any, Final

from tightloop.engine.families.constraint import (
    Constraint,
    End,
    Part,
    Quoted,
    Ruled,
    Scan,
    Then,
    Words,
    word,
)
from tightloop.engine.families.grammars import (
    ByteMatcher,
    GrammarCompiler,
    Source,
    json_source,
)
from tightloop.engine.families.tool_calls import CALL_CLOSE, CALL_OPEN, THINK_CLOSE, THINK_OPEN
from tightloop.engine.interface import EngineError, GenerationRequest
from tightloop.engine.tool_names import offered
from tightloop.protocol.output_format import OutputFormat
from tightloop.protocol.requests import CustomTool, FunctionTool

TAGS: Final = frozenset(tag.encode() for tag in (CALL_OPEN, CALL_CLOSE, THINK_OPEN, THINK_CLOSE))
"""Where a model has control tokens for these, they may be used."""

_CALL, _THINK, _THOUGHT = CALL_OPEN.encode(), THINK_OPEN.encode(), THINK_CLOSE.encode()
_CLOSE: Final = b"}\n" + CALL_CLOSE.encode()
_ANY_OBJECT: Final[dict[str, Any]] = {"type": "object"}
_NO_ARGUMENTS: Final[dict[str, Any]] = {"properties": {}, "additionalProperties": False}
_TEXT_INPUT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
_MAX_NEWLINES = 2

NamedTool = FunctionTool | CustomTool


def constraint_for(
    request: GenerationRequest,
    compiler: GrammarCompiler,
    *,
    is_thinking: bool = False,
    may_think: bool = True,
) -> Constraint | None:
    """The constraint on the answer to ``request``; None when anything may be said.

    ``is_thinking``: the answer begins inside reasoning. ``may_think``: it may begin with some,
    which no rule binds; a model that never learnt to could stay in there. Raises ``EngineError`` with code
    ``invalid_grammar``, ``invalid_json_schema`` or ``invalid_value`` (a tool that is not there).
    """
    if not is_constrained(request):
        return None
    return Constraint(_Rules(request, compiler).first(is_thinking, may_think))


def is_constrained(request: GenerationRequest) -> bool:
    """Whether anything is demanded of the answer."""
    tools = [tool for tool in request.tools if isinstance(tool, NamedTool)]
    is_free_call = request.tool_choice == "auto" and not any(map(_is_strict, tools))
    return request.output_format is not None or (bool(tools) and not is_free_call)


def _is_strict(tool: NamedTool) -> bool:
    return bool(tool.grammar) if isinstance(tool, CustomTool) else tool.strict is True


class _Rules:
    """Makes the parts of one answer. Everything is compiled at once, so that errors come early."""

    def __init__(self, request: GenerationRequest, compiler: GrammarCompiler) -> None:
        choice = request.tool_choice
        tools = offered(request)
        self._may_call = bool(tools) and choice != "none"
        self._must_call = self._may_call and choice != "auto"
        is_named = self._must_call and choice != "required"
        if is_named:
            tools = tuple(tool for tool in tools if tool.name == choice)
        self._is_single = is_named or not request.parallel_tool_calls
        self._text: ByteMatcher | None = None
        if request.output_format is not None and not self._must_call:
            self._text = compiler.matcher(_format_source(request.output_format))
        callable_now = tools if self._may_call else ()
        self._tools = {
            json.dumps(tool.name).encode(): self._arguments(tool, compiler) for tool in callable_now
        }

    def first(self, is_thinking: bool, may_think: bool) -> Part:
        """How the answer begins."""
        if is_thinking:
            return self._thinking()
        return self._speaking(0, may_think=may_think)

    def _thinking(self) -> Part:
        is_bound = self._must_call or self._text is not None
        then = self._after_thinking
        return Scan({_THOUGHT: then}, may_stop=not is_bound)

    def _after_thinking(self) -> Part:
        return self._speaking(_MAX_NEWLINES, may_think=False)

    def _speaking(self, num_newlines: int, *, may_think: bool) -> Part:
        if self._text is None and not self._must_call:
            call = self._call if self._may_call else None
            return Scan({_CALL: call, _THINK: self._thinking}, may_stop=True)
        words: dict[bytes, Then] = {}
        if self._may_call:
            words[_CALL] = self._call
        if may_think:
            words[_THINK] = self._thinking
        elif num_newlines:  # usual after reasoning, and no part of the text
            words[b"\n"] = lambda: self._speaking(num_newlines - 1, may_think=False)
        return Words(words, otherwise=None if self._text is None else self._ruled_text)

    def _ruled_text(self) -> Part:
        assert self._text is not None
        return Ruled(self._text.fresh(), self._after_text, never=(_CALL, _THINK))

    def _after_text(self) -> Part:
        return Words({_CALL: self._call}, may_stop=True) if self._may_call else End()

    def _call(self) -> Part:
        return word(b'\n{"name": ', lambda: Words(self._tools))

    def _after_call(self) -> Part:
        if self._is_single:
            return End()
        if self._must_call or self._text is not None:
            return Words({b"\n" + _CALL: self._call}, may_stop=True)
        return self._speaking(0, may_think=True)

    def _arguments(self, tool: NamedTool, compiler: GrammarCompiler) -> Then:
        """What follows a tool's name."""
        if isinstance(tool, CustomTool) and tool.grammar:
            source = Source(tool.syntax, tool.grammar, f"tool {tool.name!r}")
            text = compiler.matcher(source)
            end = b'"}' + _CLOSE
            return lambda: word(
                b', "arguments": {"input": "',
                lambda: Quoted(text.fresh(), lambda: word(end, self._after_call)),
            )
        matcher = compiler.matcher(json_source(_schema(tool), f"tool {tool.name!r}"))
        return lambda: word(
            b', "arguments": ',
            lambda: Ruled(matcher.fresh(), lambda: word(_CLOSE, self._after_call)),
        )


def _schema(tool: NamedTool) -> dict[str, Any]:
    if isinstance(tool, CustomTool):
        return _TEXT_INPUT
    if not tool.strict:
        return _ANY_OBJECT
    schema = {"type": "object", **(tool.parameters or _NO_ARGUMENTS)}
    if schema["type"] != "object":
        raise EngineError(
            f"the parameters of tool {tool.name!r} have the type {schema['type']!r}; arguments are "
            "always an 'object'",
            code="invalid_json_schema",
        )
    return schema


def _format_source(wanted: OutputFormat) -> Source:
    if wanted.schema is None:
        return json_source(_ANY_OBJECT, "the output format json_object")
    owner = f"the output format {wanted.name!r}"
    return json_source(wanted.schema, owner, is_lenient=wanted.strict is False)
