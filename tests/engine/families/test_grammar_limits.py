"""What a client's grammar may cost."""

import json
from typing import Any

import pytest

from tests.engine.families.recorded_grammars import APPLY_PATCH
from tightloop.engine.families.grammar_limits import (
    MAX_CHARS,
    MAX_MULTIPLE,
    MAX_STRING_CHARS,
    Kind,
    refuse_costly,
)
from tightloop.engine.interface import EngineError


@pytest.mark.parametrize("kind", ["lark", "regex", "json"])
def test_a_grammar_may_be_long_but_not_longer(kind: Kind) -> None:
    most = MAX_CHARS[kind]
    refuse_costly(kind, '"' + "a" * (most - 2) + '"', "tool 'x'")
    with pytest.raises(EngineError, match=rf"tool 'x' has {most + 1} characters") as refused:
        refuse_costly(kind, '"' + "a" * (most - 1) + '"', "tool 'x'")
    assert refused.value.code == ("invalid_json_schema" if kind == "json" else "invalid_grammar")


@pytest.mark.parametrize(
    "text",
    [
        'start: %json {"multipleOf": 100000007}',
        "start: a\na: %lark { start: /x/ }",
        'start: "say" %regex {"substring_words": "a"}',
        '%llguidance {"allow_invalid_utf8": true}\nstart: "a"',
        'start: /a\\/b/ "\\"" %json {}',
    ],
)
def test_what_is_no_lark_is_refused(text: str) -> None:
    with pytest.raises(EngineError, match="is no Lark"):
        refuse_costly("lark", text, "it")


@pytest.mark.parametrize(
    "text",
    [
        APPLY_PATCH,
        'start: "100%json" // %json {}\n',
        r"start: /a%lark\/%regex/ A" + '\nA: "\\"%json"\n%ignore " "\n%import common.INT',
    ],
)
def test_lark_may_name_them(text: str) -> None:
    refuse_costly("lark", text, "it")


LONG = "x" * (MAX_STRING_CHARS + 1)


@pytest.mark.parametrize(
    "schema",
    [{"items": {"const": LONG}}, {"enum": ["a", LONG]}, {"properties": {LONG: {}}}],
)
def test_long_constants_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match=r"16385 characters, 'xxxxxxxxxxxxxxxxxxxx'") as refused:
        refuse_costly("json", json.dumps(schema), "it")
    assert refused.value.code == "invalid_json_schema"
    refuse_costly("json", json.dumps({"description": LONG, "const": LONG[1:]}), "it")


@pytest.mark.parametrize(
    "schema",
    [
        {"multipleOf": MAX_MULTIPLE + 1},
        {"multipleOf": 1e9},
        {"multipleOf": 1e300},
        {"type": "array", "items": [{"multipleOf": 0.1000003}]},
        {"allOf": [{"multipleOf": 101}, {"multipleOf": 103}, {"multipleOf": 107}]},
    ],
)
def test_multiples_that_are_dear_to_compile_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="multipleOf") as refused:
        refuse_costly("json", json.dumps(schema), "it")
    assert refused.value.code == "invalid_json_schema"


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"multipleOf": {"multipleOf": 0.01}, "b": {"multipleOf": 3600}}},
        {"multipleOf": 1e-7},
        {"enum": [{"multipleOf": True}, {"multipleOf": "x"}, {"multipleOf": 0}]},
    ],
)
def test_usual_multiples_are_not(schema: dict[str, Any]) -> None:
    refuse_costly("json", json.dumps(schema), "it")
