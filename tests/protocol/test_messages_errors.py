"""Failures in Anthropic's words: clients decide by type and status what to do next."""

import json

import pytest

from tightloop.protocol.errors import ApiError
from tightloop.protocol.messages_errors import error_body, error_event, error_status


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ApiError("x"), 400, "invalid_request_error"),
        (ApiError("x", status=401, code="invalid_api_key"), 401, "authentication_error"),
        (ApiError("x", status=403, code="origin_not_allowed"), 403, "permission_error"),
        (ApiError("x", status=404, code="not_found"), 404, "not_found_error"),
        (ApiError("x", code="model_not_found"), 404, "not_found_error"),
        (ApiError("x", status=405, code="method_not_allowed"), 405, "invalid_request_error"),
        (ApiError("x", status=413, code="request_too_large"), 413, "request_too_large"),
        (ApiError("x", status=429, code="rate_limit_exceeded"), 429, "rate_limit_error"),
        (ApiError("x", status=500, error_type="server_error"), 500, "api_error"),
        (ApiError("x", status=502, code="invalid_api_key"), 502, "api_error"),
        (ApiError("x", status=503, code="engine_unavailable"), 503, "api_error"),
        (ApiError("x", status=503, code="server_is_overloaded"), 529, "overloaded_error"),
        (ApiError("x", status=504, code="upstream_timeout"), 504, "timeout_error"),
    ],
)
def test_a_refusal_has_the_type_of_its_status(error: ApiError, status: int, kind: str) -> None:
    body = json.loads(error_body(error))
    assert (status, "error", kind) == (error_status(error), body["type"], body["error"]["type"])
    assert body["error"]["message"] == "x"
    assert error.code == body["error"].get("code")


def test_a_refusal_names_the_field() -> None:
    """Beyond what the API has, for people."""
    error = ApiError("no", code="invalid_value", param="messages[0].role")
    assert json.loads(error_body(error))["error"] == {
        "type": "invalid_request_error",
        "message": "no",
        "code": "invalid_value",
        "param": "messages[0].role",
    }


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("server_is_overloaded", "overloaded_error"),
        ("rate_limit_exceeded", "rate_limit_error"),
        ("server_error", "api_error"),
        ("invalid_api_key", "api_error"),
        ("insufficient_quota", "api_error"),
        ("upstream_timeout", "timeout_error"),
        ("unsupported_content", "invalid_request_error"),
    ],
)
def test_a_failed_answer_has_the_type_of_its_code(code: str, kind: str) -> None:
    """A bad key of this server at its upstream must not look like a bad key of the client."""
    event = json.loads(error_event(code, "m"))
    assert event == {"type": "error", "error": {"type": kind, "message": "m", "code": code}}


def test_a_long_prompt_is_said_in_the_words_that_clients_look_for() -> None:
    """Claude Code sums up its conversation then."""
    code = "context_length_exceeded"
    for data in (error_event(code, "9 tokens"), error_body(ApiError("9 tokens", code=code))):
        error = json.loads(data)["error"]
        assert (error["type"], error["message"]) == (
            "invalid_request_error",
            "prompt is too long: 9 tokens",
        )


def test_any_message_can_be_sent() -> None:
    """Half characters and endless texts of an engine included."""
    message = json.loads(error_event("server_error", "\ud83d" + "x" * 10_000))["error"]["message"]
    assert message.startswith("?xx")
    assert len(message) < 3000
