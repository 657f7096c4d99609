"""Failures as the Anthropic Messages API words them.

Its clients decide by type and status: they wait and try again after ``overloaded_error`` and
``rate_limit_error``, ask for another key after ``authentication_error``, and sum up their
conversation when a message begins with ``prompt is too long``. Source: Errors page of the Messages
API, 2026. Extra fields are legal, so ``code`` and ``param`` of our own errors are kept.
"""

from typing import Any, Final

import msgspec

from tightloop.protocol.errors import ApiError, shorten

OVERLOADED_STATUS: Final = 529
TOO_LONG: Final = "prompt is too long: "

_TYPE_OF_STATUS: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED_STATUS: "overloaded_error",
}
_STATUS_OF_CODE: Final = {
    "model_not_found": 404,
    "server_is_overloaded": OVERLOADED_STATUS,
}
_TYPE_OF_CODE: Final = {
    "rate_limit_exceeded": "rate_limit_error",
    "server_is_overloaded": "overloaded_error",
    "upstream_timeout": "timeout_error",
    "model_not_found": "not_found_error",
    # These are about this server or its upstream, never about the client's own key or quota.
    "server_error": "api_error",
    "store_failed": "api_error",
    "upstream_error": "api_error",
    "engine_unavailable": "api_error",
    "invalid_api_key": "api_error",
    "permission_denied": "api_error",
    "insufficient_quota": "api_error",
}


def error_status(error: ApiError) -> int:
    """The HTTP status of a refusal in this dialect."""
    return _STATUS_OF_CODE.get(error.code or "", error.status)


def error_body(error: ApiError) -> bytes:
    """JSON of a refusal: the body of an HTTP answer with ``error_status``."""
    status = error_status(error)
    default = "api_error" if status >= 500 else "invalid_request_error"
    kind = _TYPE_OF_STATUS.get(status, default)
    return _body(kind, error.message, error.code, error.param)


def error_event(code: str, message: str) -> bytes:
    """JSON of the event that ends a stream, for the error code of a failed response."""
    return _body(_TYPE_OF_CODE.get(code, "invalid_request_error"), message, code, None)


def _body(kind: str, message: str, code: str | None, param: str | None) -> bytes:
    if code == "context_length_exceeded":
        message = TOO_LONG + message
    error: dict[str, Any] = {"type": kind, "message": _presentable(message)}
    if code is not None:
        error["code"] = code
    if param is not None:
        error["param"] = param
    return msgspec.json.encode({"type": "error", "error": error})


def _presentable(message: str) -> str:
    """Short, and encodable whatever an engine put into it."""
    return shorten(message).encode("utf-8", "replace").decode()
