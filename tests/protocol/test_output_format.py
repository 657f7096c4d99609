"""The shape a message must have, from both APIs that ask for one."""

from typing import Any

import pytest

from tightloop.protocol.errors import ApiError
from tightloop.protocol.output_format import OutputFormat, decode_output_format

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def test_plain_text_is_no_format() -> None:
    assert decode_output_format(None) is None
    assert decode_output_format({"type": "text"}) is None


def test_both_ways_of_writing_a_schema_mean_the_same() -> None:
    inner = {"name": "answer", "schema": SCHEMA, "strict": True}
    expected = OutputFormat("json_schema", SCHEMA, "answer", True)
    assert expected == decode_output_format({"type": "json_schema", **inner})
    assert expected == decode_output_format({"type": "json_schema", "json_schema": inner})
    assert OutputFormat("json_object") == decode_output_format({"type": "json_object"})


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("json", "text.format"),
        ({"type": "yaml"}, "text.format.type"),
        ({"type": "json_schema", "name": "a"}, "text.format.schema"),
        ({"type": "json_schema", "schema": SCHEMA}, "text.format.name"),
        ({"type": "json_schema", "json_schema": {"schema": 3}}, "text.format.json_schema.schema"),
    ],
)
def test_what_is_wrong_is_named(value: Any, param: str) -> None:
    with pytest.raises(ApiError) as refusal:
        decode_output_format(value)
    assert refusal.value.param == param
