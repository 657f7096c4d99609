"""Failures of hosts, and what to do about them."""

import pytest

from tightloop.engine.remote.errors import refusal, retry_after_s
from tightloop.protocol.errors import ApiError


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "invalid_request"),
        (401, "invalid_api_key"),
        (402, "insufficient_quota"),
        (404, "model_not_found"),
        (408, "upstream_timeout"),
        (415, "invalid_request"),
        (422, "invalid_request"),
        (429, "rate_limit_exceeded"),
        (500, "upstream_error"),
        (504, "upstream_timeout"),
        (529, "upstream_error"),
    ],
)
def test_every_status_has_its_code(status: int, code: str) -> None:
    refused = refusal(ApiError("no", status=status, retry_after_s=3), "host (model m)", "A_KEY")
    assert (refused.code, refused.retry_after_s) == (code, 3)
    assert f"host (model m) answered {status}: no" in str(refused)


def test_a_code_that_is_ours_is_kept() -> None:
    error = ApiError("pay", status=429, code="insufficient_quota")
    assert refusal(error, "host", "A_KEY").code == "insufficient_quota"
    full = ApiError("maximum context length is 8", status=400, code="invalid_request_error")
    assert refusal(full, "host", "A_KEY").code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, None),
    ],
)
def test_hints_to_wait(headers: dict[str, str], wait_s: float | None) -> None:
    assert retry_after_s(headers) == wait_s
