"""Names and schemas that every backend takes."""

import re

from hypothesis import given
from hypothesis import strategies as st

from tightloop.agent.tools.mcp.naming import clean_description, clean_schema, tool_name

SERVERS = st.from_regex(r"\A[a-z0-9](-?_?[a-z0-9]){0,8}\Z")
TOOLS = st.text(min_size=1, max_size=80)


def test_plain_names_stay() -> None:
    assert tool_name("git", "read_file") == "mcp__git__read_file"


@given(SERVERS, TOOLS, SERVERS, TOOLS)
def test_names_fit_and_differ(a: str, b: str, c: str, d: str) -> None:
    """Whatever a server calls its tools."""
    first, second = tool_name(a, b), tool_name(c, d)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", first)
    assert (first == second) == ((a, b) == (c, d))


def test_names_that_read_the_same_when_joined() -> None:
    assert len({tool_name("a", "_b"), tool_name("a", "b"), tool_name("a", "b.c")}) == 3
    assert tool_name("a", "b.c") != tool_name("a", "b_c")


def test_a_schema_keeps_what_it_allows() -> None:
    """And loses what only costs tokens; a property may have the name of a keyword."""
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "addArguments",
        "x-vendor": 1,
        "type": "object",
        "properties": {
            "title": {"type": "string", "title": "Title", "default": {"title": "kept"}},
            "n": {"anyOf": [{"type": "integer", "title": "N"}, {"type": "null"}]},
        },
        "required": ["title"],
    }
    assert clean_schema(schema) == {
        "type": "object",
        "properties": {
            "title": {"type": "string", "default": {"title": "kept"}},
            "n": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        },
        "required": ["title"],
    }


def test_what_is_no_schema_of_an_object_becomes_one() -> None:
    empty = {"type": "object", "properties": {}}
    odd: list[object] = [None, True, [], {}, {"properties": 3}]
    assert [clean_schema(one) for one in odd] == [empty] * 5


def test_a_schema_without_end_is_cut() -> None:
    schema: dict[str, object] = {}
    for _ in range(5000):
        schema = {"type": "object", "properties": {"a": schema}}
    assert clean_schema(schema)["type"] == "object"


def test_descriptions_are_bounded_and_printable() -> None:
    assert clean_description("\x1b[31mred\n") == "[31mred"
    assert len(clean_description("x" * 9999)) == 2000
