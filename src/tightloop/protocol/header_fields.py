"""Every HTTP header that a server reads or sends on purpose, and what it does with it.

The documentation is written from this; a test compares it with the server's code.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class HeaderField:
    """One header. ``in_code`` is how the code says it, where it is not by its name."""

    name: str
    text: str
    in_code: str = ""


READ: Final[tuple[HeaderField, ...]] = (
    HeaderField(
        "Authorization",
        "`Bearer KEY`. Checked once for each request or socket when the server has keys.",
    ),
    HeaderField("x-api-key", "The key, as Anthropic's clients send it."),
    HeaderField(
        "Origin",
        "Set by browsers. A server without keys refuses pages of other sites: a page must not drive"
        " the model of whoever visits it.",
    ),
    HeaderField("Upgrade", "`websocket` on `GET /v1/responses` begins WebSocket mode."),
    HeaderField(
        "If-None-Match",
        "On `GET /v1/models`: the `ETag` that is known already; if it still holds, the answer is"
        " 304 without a body.",
        in_code=".if_none_match",
    ),
    HeaderField("X-Tightloop-Timing", "`1` asks for the timing of this response."),
    HeaderField(
        "X-Claude-Code-Session-Id",
        "Claude Code's session, which becomes the key that keeps its prefix warm.",
    ),
    HeaderField("originator", "Codex says who it is: it gets its own timing event."),
    HeaderField("User-Agent", "Logged when a socket opens; likewise read for Codex."),
)
"""Request headers. All others are ignored."""

SENT: Final[tuple[HeaderField, ...]] = (
    HeaderField("Content-Type", "`application/json`, or `text/event-stream` for a stream."),
    HeaderField("Cache-Control", "`no-cache` with a stream."),
    HeaderField(
        "X-Accel-Buffering", "`no` with a stream: a proxy that collects tokens would undo all this."
    ),
    HeaderField(
        "Server-Timing",
        "With a whole response: `server`, `queue`, `prefill`, `decode` and `first-token` in"
        " milliseconds (W3C Server Timing); `backend`, `service_tier` and `reason` as descriptions,"
        " where one of several backends was picked.",
    ),
    HeaderField(
        "X-Tightloop-Capabilities",
        "With the upgrade to a WebSocket: extensions that this server makes use of, separated by"
        " commas; `response.prefill` is [streamed prefill](wire.md). Missing when there are none.",
        in_code="CAPABILITIES_HEADER",
    ),
    HeaderField("ETag", "With `GET /v1/models`: changes when the listing does.", in_code=".etag"),
    HeaderField("retry-after", "Seconds after which trying again makes sense; with 429 and 503."),
    HeaderField("WWW-Authenticate", "`Bearer` with 401."),
    HeaderField("Allow", "The methods that exist, with 405."),
)
"""Response headers, beside those that HTTP itself needs."""
