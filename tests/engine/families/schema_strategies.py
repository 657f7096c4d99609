"""JSON schemas with a test of their own for values: a judge that has nothing to do with a compiler."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b c", 'd"', "é", "input"])
SIMPLE = st.sampled_from([None, True, 0, 'x"', "\\\n", "日本", ""])


@dataclass(frozen=True, slots=True)
class Described:
    """A schema, and whether a value is one of those it describes."""

    schema: dict[str, Any]
    holds: Callable[[Any], bool]


def _whole(bounds: tuple[int, int]) -> Described:
    low, high = sorted(bounds)
    return Described(
        {"type": "integer", "minimum": low, "maximum": high},
        lambda value: type(value) is int and low <= value <= high,
    )


def _pattern(pattern: str) -> Described:
    return Described(
        {"type": "string", "pattern": f"^({pattern})$"},
        lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None,
    )


def _one_of(values: list[Any]) -> Described:
    kinds = [(type(value), value) for value in values]
    return Described({"enum": values}, lambda value: (type(value), value) in kinds)


def _array(inner: Described, most: int) -> Described:
    return Described(
        {"type": "array", "items": inner.schema, "maxItems": most},
        lambda value: (
            isinstance(value, list) and len(value) <= most and all(map(inner.holds, value))
        ),
    )


def _any(inner: list[Described]) -> Described:
    return Described(
        {"anyOf": [one.schema for one in inner]},
        lambda value: any(one.holds(value) for one in inner),
    )


def an_object(inner: dict[str, Described], optional: frozenset[str] = frozenset()) -> Described:
    """All of ``inner`` and nothing else, of the ``optional`` ones any."""
    needed = set(inner) - optional
    return Described(
        {
            "type": "object",
            "properties": {name: one.schema for name, one in inner.items()},
            "required": sorted(needed),
            "additionalProperties": False,
        },
        lambda value: (
            isinstance(value, dict)
            and needed <= set(value) <= set(inner)
            and all(inner[name].holds(value[name]) for name in value)
        ),
    )


def _leaves() -> st.SearchStrategy[Described]:
    return st.one_of(
        st.tuples(st.integers(-300, 300), st.integers(-300, 300)).map(_whole),
        st.sampled_from(["[a-c]{1,3}", "(é|日)+", r'["\\\n]{2}', r"[0-9]{2}:x?", ""]).map(_pattern),
        st.lists(SIMPLE, min_size=1, max_size=3, unique_by=repr).map(_one_of),
    )


def _larger(inner: st.SearchStrategy[Described]) -> st.SearchStrategy[Described]:
    return st.one_of(
        st.builds(_array, inner, st.integers(0, 3)),
        st.lists(inner, min_size=1, max_size=3).map(_any),
        st.builds(
            an_object, st.dictionaries(NAMES, inner, max_size=3), st.frozensets(NAMES, max_size=2)
        ),
    )


def objects() -> st.SearchStrategy[Described]:
    """Objects of anything."""
    values = st.recursive(_leaves(), _larger, max_leaves=6)
    return st.builds(an_object, st.dictionaries(NAMES, values, min_size=1, max_size=3))
