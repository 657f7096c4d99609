"""Lines on standard input: every operation, and what is wrong with those that are none."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.harness.inputs import (
    MAX_LINE_BYTES,
    BadLine,
    End,
    Interrupt,
    Op,
    Queue,
    SteerTurn,
    Withdraw,
    decode,
    name_of,
)


@pytest.mark.parametrize(
    ("line", "op"),
    [
        (b'{"op":"queue","text":"go"}', Queue(text="go")),
        (b'{"op":"steer","text":"go"}', SteerTurn(text="go")),
        (
            b'{"op":"steer","id":"7","text":"go","now":true,"expected_turn":"turn_1"}\r',
            SteerTurn(id="7", text="go", now=True, expected_turn="turn_1"),
        ),
        (b'{"op":"interrupt","drop":true}', Interrupt(drop=True)),
        (b'{"op":"withdraw","message":"steer_0"}', Withdraw(message="steer_0")),
        (b'{"op":"end"}', End()),
    ],
)
def test_operations(line: bytes, op: Op) -> None:
    assert decode(line) == op
    assert f'"op":"{name_of(op)}"'.encode() in line


@pytest.mark.parametrize(
    ("line", "op", "line_id", "words"),
    [
        (b"hello", "", None, "malformed"),
        (b"[]", "", None, "Expected `object`"),
        (b'{"text":"go"}', "", None, "missing required field `op`"),
        (b'{"op":"stop","id":"3"}', "stop", "3", "Invalid value 'stop'"),
        (b'{"op":"queue","id":"3"}', "queue", "3", "missing required field `text`"),
        (b'{"op":"queue","text":" "}', "queue", None, "text is empty"),
        (b'{"op":"steer","text":"go","turn":"x"}', "steer", None, "unknown field `turn`"),
        (b'{"op":"steer","text":"\xff"}', "steer", None, "utf-8"),
        (b'"' + b"x" * MAX_LINE_BYTES + b'"', "", None, "longer than"),
    ],
)
def test_bad_lines(line: bytes, op: str, line_id: str | None, words: str) -> None:
    with pytest.raises(BadLine, match=words) as raised:
        decode(line)
    assert (raised.value.op, raised.value.line_id) == (op, line_id)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_operation_or_a_bad_line(line: bytes) -> None:
    with suppress(BadLine):
        assert name_of(decode(line))
