"""Errors of the protocol.

::

    ProtocolError
    +-- LocalProtocolError    our own caller broke the contract (a bug on this side)
    +-- RemoteProtocolError   the peer sent what the protocol does not allow; becomes an ApiError
    +-- ApiError              a refusal with status, code and the field at fault, for the wire
"""

import re
from typing import Any, Final

import msgspec

MAX_MESSAGE_CHARS: Final = 2_000
"""Longest message put on the wire: a refusal must not repeat a large request back."""


class ProtocolError(Exception):
    """Root of all protocol errors."""


class LocalProtocolError(ProtocolError):
    """This side called something out of order."""


class ApiError(ProtocolError):
    """A refusal as the API words it.

    ``status`` is the HTTP status, ``error_type`` e.g. ``invalid_request_error``, ``code`` e.g.
    ``model_not_found``, ``param`` the path of the field at fault, ``retry_after_s`` a hint for 429.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        error_type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.error_type = error_type
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The object under ``"error"`` in HTTP bodies and WebSocket error events."""
        return {
            "message": shorten(self.message),
            "type": self.error_type,
            "code": self.code,
            "param": self.param,
        }


class RemoteProtocolError(ProtocolError):
    """The peer sent bytes or an order of events that the protocol does not allow."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param

    def as_api_error(self) -> ApiError:
        """The refusal to answer with."""
        return ApiError(str(self), status=self.status, code="invalid_request", param=self.param)


def shorten(text: str, limit: int = MAX_MESSAGE_CHARS) -> str:
    """``text``, cut to at most ``limit`` characters with a mark where it was cut."""
    mark = " [... shortened]"
    return text if len(text) <= limit else text[: limit - len(mark)] + mark


def from_validation_error(error: Exception, where: str = "") -> ApiError:
    """The refusal for a decoding failure, with the path of the field at fault.

    ``where`` is the path of the value that was being decoded, empty for the whole body. Handles
    what msgspec raises: ``ValidationError``, ``DecodeError``, ``UnicodeDecodeError`` and, for
    nesting beyond the interpreter's limit, ``RecursionError``.
    """
    if isinstance(error, msgspec.ValidationError):
        return _from_validation(str(error), where)
    if isinstance(error, RecursionError):
        message, code = "JSON is nested too deeply", "invalid_json"
    elif isinstance(error, UnicodeDecodeError):
        message, code = f"JSON is not UTF-8: {error.reason} at byte {error.start}", "invalid_json"
    else:
        message, code = (
            f"not JSON: {str(error).removeprefix('JSON is malformed: ')}",
            "invalid_json",
        )
    return ApiError(message, code=code, param=where or None)


_PATH: Final = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_WRONG_TYPE: Final = re.compile(r"Expected `[^`]+`(, got .*)?$")
_MISSING: Final = re.compile(r"missing required field `(?P<field>[^`]+)`")


def _from_validation(text: str, where: str) -> ApiError:
    found = _PATH.search(text)
    param = where + (found["path"] if found else "")
    reason = text[: found.start()] if found else text
    missing = _MISSING.search(reason)
    if missing:
        param = f"{param}.{missing['field']}"
        message, code = f"missing required field {param.lstrip('.')}", "missing_required_parameter"
    else:
        message = f"{param.lstrip('.') or 'the body'}: {reason[:1].lower()}{reason[1:]}"
        code = "invalid_type" if _WRONG_TYPE.match(reason) else "invalid_value"
    return ApiError(message, code=code, param=param.lstrip(".") or None)


def api_error_from_wire(
    payload: object, *, status: int = 400, retry_after_s: float | None = None
) -> ApiError:
    """The refusal a server sent, from any of the shapes in use.

    ``payload`` is the decoded HTTP body ``{"error": {...}}``, a WebSocket error event (whose own
    ``status`` and ``headers`` win), or a flat server-sent ``error`` event. Never raises.
    """
    event = payload if isinstance(payload, dict) else {}
    inner = event.get("error", event)
    if isinstance(inner, str):
        inner = {"message": inner}
    if not isinstance(inner, dict):
        inner = {}
    headers = event.get("headers")
    if isinstance(headers, dict):
        retry_after_s = _seconds(headers.get("retry-after")) or retry_after_s
    own_status = event.get("status")
    status = own_status if isinstance(own_status, int) else status
    return ApiError(
        _text(inner.get("message"))
        or f"the server refused the request ({status}) without a reason",
        status=status,
        error_type=_error_type(inner, status),
        code=_text(inner.get("code")),
        param=_text(inner.get("param")),
        retry_after_s=retry_after_s,
    )


def _error_type(inner: dict[str, Any], status: int) -> str:
    kind = _text(inner.get("type"))
    if kind and kind != "error":  # a flat event's own type says nothing
        return kind
    return "server_error" if status >= 500 else "invalid_request_error"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _seconds(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, str | int | float) else None
    except ValueError:
        return None
