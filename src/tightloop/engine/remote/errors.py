"""What went wrong at a host: in which code it ends, and what to do about it.

A generation that fails ends in ``Finished`` (ERROR) with one of the codes below, or with the host's own
code from within a stream. This package never asks another host; ``fleet.route`` does.

====================== ================================================================
``upstream_error``     the host failed, refused for no reason of the request's, or broke off
``upstream_timeout``   the host was silent for too long
``rate_limit_exceeded``the host's limit; ``Finished.retry_after_s`` when it said how long
``engine_unavailable`` the engine is not running here
others                 the request's fault, or a setting's (key, quota, model)
====================== ================================================================
"""

from collections.abc import Mapping
from typing import Final

from tightloop.engine.interface import EngineError
from tightloop.protocol.errors import ApiError

MAX_RETRY_AFTER_S: Final = 86_400.0
"""A longer wait is no hint to wait."""

_REQUEST_CODES: Final = frozenset(
    {
        "invalid_request",
        "invalid_value",
        "invalid_type",
        "invalid_json",
        "missing_required_parameter",
        "unsupported_parameter",
        "unsupported_content",
        "invalid_json_schema",
        "invalid_grammar",
        "invalid_encrypted_content",
        "context_length_exceeded",
        "string_above_max_length",
        "content_filter",
    }
)
"""Any host would say no to the same request."""

_SETTING_CODES: Final = frozenset(
    {"invalid_api_key", "insufficient_quota", "permission_denied", "model_not_found"}
)
"""This host will say no again; another one has another key."""

_STATUS_CODES: Final = {
    400: "invalid_request",
    401: "invalid_api_key",
    402: "insufficient_quota",
    403: "permission_denied",
    404: "model_not_found",
    408: "upstream_timeout",
    413: "context_length_exceeded",
    429: "rate_limit_exceeded",
    504: "upstream_timeout",
}


class Refusal(EngineError):
    """The host said no before any output. ``retry_after_s`` is its hint, if it gave one."""

    def __init__(self, message: str, *, code: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


def refusal(error: ApiError, who: str, key_env: str) -> Refusal:
    """The refusal in our codes, saying who refused and what to do about it."""
    status, wait_s = error.status, error.retry_after_s
    # 4xx without a meaning of its own here is still the request's fault.
    fallback = "invalid_request" if status in (405, 415, 422) else "upstream_error"
    code = _STATUS_CODES.get(status, fallback)
    advice = ""
    if status == 401:
        advice = f"; set a valid key in {key_env}"
    elif 300 <= status < 400:
        advice = "; redirects are not followed, check the base URL"
    elif status == 404:
        advice = "; check the model's name and the base URL, models are retired often"
    elif status == 429:
        advice = "; retry later" if wait_s is None else f"; retry after {wait_s:g} s"
    if status in (400, 413, 422) and "context" in f"{error.code} {error.message}".lower():
        code = "context_length_exceeded"
    if error.code in _REQUEST_CODES or error.code in _SETTING_CODES:
        code = error.code  # hosts that speak our codes
    message = f"{who} answered {status}: {error.message}{advice}"
    return Refusal(message, code=code, retry_after_s=wait_s)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The wait in ``retry-after-ms`` or ``retry-after`` (seconds); None for none and for a date.

    ``headers`` have lower-case names.
    """
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait_s = float(headers[name]) * unit_s
        except (KeyError, ValueError):
            continue
        if 0 <= wait_s <= MAX_RETRY_AFTER_S:
            return wait_s
    return None
