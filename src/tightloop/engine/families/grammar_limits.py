"""What a client's grammar may cost, and the refusal of what costs more.

A grammar is compiled beside the sessions that decode, but on the same processor and by native code
that nothing can stop; and it is followed between their tokens. Measured with llguidance 1.9.1:

- rules that follow one another in a chain are compiled recursively: 4000 of them overflow a stack
  of 8 MiB and end the process, 8000 do well with 128 MiB, hence the size of a grammar;
- the lexer of a long constant is built when it is reached: 0.03 s for 20000 characters, 1.1 s for 250000;
- the time of ``multipleOf`` grows with the number: 10007 takes 0.08 s, 1000003 takes 15 s and 300 MB,
  1000000000 ends the process for want of memory;
- an ambiguous grammar (``e: e e e | e e | "a"``) takes 440 ms for a byte after 300 bytes, and 24 ms
  with ``MAX_AMBIGUITY``.
"""

import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

from tightloop.engine.interface import EngineError

Kind = Literal["lark", "regex", "json"]

MAX_CHARS: Final[dict[Kind, int]] = {"lark": 1 << 15, "regex": 1 << 14, "json": 1 << 18}
MAX_STRING_CHARS: Final = 1 << 14
"""Of a name, constant or pattern in a JSON schema."""

MAX_MULTIPLE: Final = 50_000
MAX_AMBIGUITY: Final = 500
"""Ways to read a text that are followed at once, in a Lark grammar or regular expression."""

MAX_LEXER_STATES: Final = 1 << 16
"""About 0.5 kB each, and a grammar that is kept keeps them."""

MAX_OPTIONS: Final = 2000
"""The same in a JSON schema, which is not ambiguous: 500 optional properties of one object."""

_DIRECTIVE: Final = re.compile(
    r""""(?:\\.|[^"\\\n])*"|//[^\n]*|/(?:\\.|[^/\\\n])+/|%(?P<name>json|lark|regex|llguidance)\b"""
)
"""Strings, comments and regular expressions are passed over."""


def refuse_costly(kind: Kind, text: str, owner: str) -> None:
    """Raises ``EngineError`` for a grammar that could take the machine from the other sessions."""
    if len(text) > MAX_CHARS[kind]:
        raise _refusal(
            kind, owner, f"has {len(text)} characters and may have {MAX_CHARS[kind]} at most"
        )
    if kind == "lark":
        _refuse_directives(text, owner)
    elif kind == "json":
        schema = msgspec.json.decode(text)
        _refuse_multiples(schema, owner)
        _refuse_long_strings(schema, owner)


def _refuse_directives(text: str, owner: str) -> None:
    for match in _DIRECTIVE.finditer(text):
        if match["name"]:
            raise _refusal("lark", owner, f"uses %{match['name']}, which is no Lark")


def _refuse_multiples(schema: object, owner: str) -> None:
    numbers = [_digits(value) for value in _multiples(schema)]
    if math.lcm(*numbers) > MAX_MULTIPLE:  # they are combined where more than one applies
        raise _refusal(
            "json",
            owner,
            f"has a multipleOf, or several together, beyond {MAX_MULTIPLE}; leave it out",
        )


def _refuse_long_strings(schema: object, owner: str) -> None:
    for value in _objects(schema):
        told = (value.get("const"), value.get("pattern"), *_list(value.get("enum")))
        for text in (*value, *told):
            if isinstance(text, str) and len(text) > MAX_STRING_CHARS:
                what = f"has a string of {len(text)} characters, {text[:20]!r}...; shorten it"
                raise _refusal("json", owner, what)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _multiples(schema: object) -> Iterator[int | float]:
    """Every number under a key ``multipleOf``."""
    for value in _objects(schema):
        number = value.get("multipleOf")
        if isinstance(number, int | float) and not isinstance(number, bool):
            yield number


def _objects(schema: object) -> Iterator[dict[str, Any]]:
    """Every object in ``schema``, at whatever place."""
    rest: list[Any] = [schema]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            yield value
            rest += value.values()
        elif isinstance(value, list):
            rest += value


def _digits(number: float) -> int:
    """The number without its decimal point, as the compiler counts with it."""
    _, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    shift = exponent if isinstance(exponent, int) else 0
    return int("".join(map(str, digits))) * 10 ** max(0, shift) or 1


def _refusal(kind: Kind, owner: str, what: str) -> EngineError:
    names = {"lark": "Lark grammar", "regex": "regular expression", "json": "JSON schema"}
    code = "invalid_json_schema" if kind == "json" else "invalid_grammar"
    return EngineError(f"the {names[kind]} of {owner} {what}", code=code)
