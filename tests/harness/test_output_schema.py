"""The shape of the last message: what is asked for, what fits, what is no schema."""

from pathlib import Path

import pytest

from tightloop.harness.backend import UsageError
from tightloop.harness.output_schema import MAX_BYTES, OutputSchema, load_schema

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def test_it_is_asked_for_as_text_format() -> None:
    shape = OutputSchema(SCHEMA).request["text"]["format"]
    assert (shape["type"], shape["schema"], shape["strict"]) == ("json_schema", SCHEMA, True)
    assert shape["name"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"n": 1}', ""),
        (' {"n": 1}\n', ""),
        ('{"n": "1"}', "$.n: '1' is not of type 'integer'"),
        ("{}", "$: 'n' is a required property"),
        ("Done.", "it is no JSON (JSON is malformed: invalid character (byte 0)): 'Done.'"),
        ("", "it is no JSON (Input data was truncated): ''"),
    ],
)
def test_what_fits(text: str, problem: str) -> None:
    assert OutputSchema(SCHEMA).problem(text) == problem


def test_long_messages_are_shown_in_part() -> None:
    assert len(OutputSchema(SCHEMA).problem("x" * 10_000)) < 300


def test_nothing_is_fetched_for_a_reference() -> None:
    schema = OutputSchema({"$ref": "http://127.0.0.1:9/schema.json"})
    assert "not in it" in schema.problem("{}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is no JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"type": "thing"}', "'thing' is not valid"),
        (b'{"type": 3}', r"\$\.type"),
        (b" " * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_what_is_no_schema(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "schema.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words) as raised:
        load_schema(path)
    assert str(raised.value).startswith("--output-schema: ")
    assert str(path) in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load_schema(tmp_path / "none.json")
