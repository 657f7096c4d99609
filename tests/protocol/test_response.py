import json

import msgspec
import pytest
from hypothesis import given, settings
from openai.types.responses import Response

from tests.strategies import usages
from tightloop.protocol.deltas import Usage
from tightloop.protocol.requests import ResponseRequest, decode_request
from tightloop.protocol.response import STRICT_KEYS, ResponseEcho, decode_usage, encode_usage

BODY = {
    "model": "m",
    "temperature": 0.5,
    "reasoning": {"effort": "high"},
    "text": {"verbosity": "low"},
    "metadata": {"a": "b"},
    "tools": [{"type": "function", "name": "f", "strict": True}],
    "tool_choice": {"type": "function", "name": "f"},
}


def test_all_keys_are_there_and_the_official_type_accepts_them() -> None:
    echo = ResponseEcho("resp_1", decode_request(json.dumps(BODY)), created_at=5)
    raw = echo.render("completed", usage=Usage(3, 2, 1), completed_at=6)
    response = json.loads(raw)
    assert len(STRICT_KEYS) == 31
    assert set(response) == STRICT_KEYS
    assert Response.model_validate_json(raw).id == "resp_1"
    assert response["reasoning"] == {"effort": "high", "summary": None}
    assert response["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert response["tool_choice"] == BODY["tool_choice"]
    assert (response["created_at"], response["completed_at"]) == (5, 6)


def test_only_what_the_standard_allows_is_null() -> None:
    """Source: Open Responses specification, 2026-04-24."""
    nullable = {
        "completed_at", "error", "incomplete_details", "instructions", "previous_response_id",
        "reasoning", "usage", "max_output_tokens", "max_tool_calls", "safety_identifier",
        "prompt_cache_key",
    }  # fmt: skip
    raw = ResponseEcho("resp_1", ResponseRequest("m", ()), created_at=5).render("in_progress")
    nulls = {key for key, value in json.loads(raw).items() if value is None}
    assert nulls <= nullable


def test_a_request_made_in_code_echoes_like_a_decoded_one() -> None:
    made = ResponseEcho("r", ResponseRequest("m", (), tool_choice="f"), created_at=1)
    response = json.loads(made.render("failed", error=("server_error", "died")))
    assert response["tool_choice"] == {"type": "function", "name": "f"}
    assert response["error"] == {"code": "server_error", "message": "died"}
    plain = ResponseEcho("r", ResponseRequest("m", ()), created_at=1).render("queued")
    decoded = ResponseEcho("r", decode_request(b'{"model":"m"}'), created_at=1).render("queued")
    assert json.loads(plain) == json.loads(decoded)


def test_output_and_the_reason_of_an_incomplete_response() -> None:
    echo = ResponseEcho("r", ResponseRequest("m", ()), created_at=1)
    raw = echo.render("incomplete", output=[b'{"a":1}', b'{"b":2}'], incomplete_reason="steered")
    response = json.loads(raw)
    assert response["output"] == [{"a": 1}, {"b": 2}]
    assert response["incomplete_details"] == {"reason": "steered"}


@given(usages)
@settings(max_examples=20, deadline=None)
def test_usage_survives_the_wire(usage: Usage) -> None:
    wire = encode_usage(usage)
    assert decode_usage(json.loads(json.dumps(wire))) == usage
    assert wire["total_tokens"] == usage.input_tokens + usage.output_tokens


def test_missing_usage_counts_as_zero() -> None:
    assert decode_usage(None) == decode_usage({"input_tokens_details": None}) == Usage()
    with pytest.raises(msgspec.ValidationError):
        decode_usage({"input_tokens": "many"})


def test_the_tier_that_was_used_takes_the_place_of_the_one_asked_for() -> None:
    """Once: a key that comes twice is read differently by different parsers."""
    request = decode_request(b'{"model": "m", "service_tier": "auto"}')
    echo = ResponseEcho("r", request, created_at=1)
    before = echo.render("in_progress")
    after = echo.render("completed", extra={"service_tier": "flex", "end_turn": False})
    assert json.loads(before)["service_tier"] == "auto"
    assert json.loads(after)["service_tier"] == "flex"
    assert json.loads(after)["end_turn"] is False
    assert after.count(b'"service_tier"') == 1
    assert set(json.loads(before)) | {"end_turn"} == set(json.loads(after))
