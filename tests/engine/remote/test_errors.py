"""Failures of hosts, and what to do about them."""

import pytest

from tightloop.engine.remote.errors import Retry, refusal, retry_advice, retry_after_s
from tightloop.protocol.deltas import Finished, FinishReason, Usage
from tightloop.protocol.errors import ApiError


def failed(code: str, wait_s: float | None = None) -> Finished:
    return Finished(FinishReason.ERROR, Usage(), None, code, "no", retry_after_s=wait_s)


@pytest.mark.parametrize(
    ("finished", "advice"),
    [
        (failed("upstream_error"), Retry()),
        (failed("upstream_timeout"), Retry()),
        (failed("engine_unavailable"), Retry()),
        (failed("rate_limit_exceeded", 2.5), Retry(2.5)),
        (failed("their_own_code"), Retry()),
        (failed("invalid_api_key"), Retry(None, True)),
        (failed("model_not_found"), Retry(None, True)),
        (failed("context_length_exceeded"), None),
        (failed("content_filter"), None),
        (failed("invalid_request"), None),
        (Finished(FinishReason.STOP, Usage()), None),
        (Finished(FinishReason.CANCELLED, Usage()), None),
    ],
)
def test_what_may_be_asked_again(finished: Finished, advice: Retry | None) -> None:
    assert retry_advice(finished, has_output=False) == advice


def test_nothing_is_asked_again_after_output() -> None:
    """The first answer may have called a tool already."""
    assert retry_advice(failed("upstream_error"), has_output=True) is None


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
