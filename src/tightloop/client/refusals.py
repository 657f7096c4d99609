"""Reads a server's refusal, in any of the shapes that servers use, into an ``ApiError``.

Shapes: ``{"error": {...}}`` (HTTP bodies), ``{"type": "error", "status": 400, "error": {...}}``
(WebSocket) and ``{"type": "error", "code": ..., "message": ...}`` (flat, server-sent events).
"""

from collections.abc import Mapping
from typing import Any

import orjson

from tightloop.protocol.errors import ApiError

MAX_MESSAGE_CHARS = 2000


def refusal(
    event: Mapping[str, Any], *, status: int = 500, headers: Mapping[str, str] | None = None
) -> ApiError:
    """The error in ``event``; what it lacks is taken from the HTTP ``status`` and headers."""
    nested = event.get("error")
    detail: Mapping[str, Any] = nested if isinstance(nested, dict) else event
    message = detail.get("message") or (nested if isinstance(nested, str) else "")
    given = event.get("status")
    kind = detail.get("type")
    all_headers = {**(headers or {}), **_mapping(event.get("headers"))}
    return ApiError(
        str(message or "the server gave no reason")[:MAX_MESSAGE_CHARS],
        status=given if isinstance(given, int) else status,
        error_type=kind if isinstance(kind, str) and kind != "error" else "server_error",
        code=_text(detail.get("code")),
        param=_text(detail.get("param")),
        retry_after_s=_seconds(all_headers.get("retry-after")),
    )


def refusal_of_body(body: bytes, status: int, headers: Mapping[str, str]) -> ApiError:
    """The error in an HTTP error body, JSON or not."""
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        event = orjson.loads(body)
    except orjson.JSONDecodeError:
        event = None
    if not isinstance(event, dict):
        text = body[:MAX_MESSAGE_CHARS].decode("utf-8", "replace").strip()
        event = {"message": text or f"HTTP status {status} without a body"}
    return refusal(event, status=status, headers=lower)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _seconds(value: object) -> float | None:
    try:
        return max(0.0, float(value)) if isinstance(value, str | int | float) else None
    except ValueError:
        return None
