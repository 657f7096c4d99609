"""The settings of a request that decide how its prompt begins."""

from typing import Final

import msgspec
from msgspec import Raw

from tightloop.protocol.requests import ResponseRequest

NO_TOOLS: Final = Raw(b"[]")


class CacheSettings(msgspec.Struct, frozen=True):
    """What besides its input decides the beginning of a prompt, in the order of suspicion.

    Every response of a conversation holds its settings, and tools are tens of kilobytes, so those
    that did not change are one object (``settings_like``).
    """

    model: str
    prompt_cache_key: str | None
    tools: Raw
    text_format: bytes
    reasoning_effort: str | None
    verbosity: str | None
    service_tier: str | None


def settings_of(request: ResponseRequest) -> CacheSettings:
    """The settings of a request."""
    text = request.echo.get("text") or {}
    return CacheSettings(
        model=request.model,
        prompt_cache_key=request.prompt_cache_key,
        tools=request.echo.get("tools", NO_TOOLS),
        text_format=msgspec.json.encode(text.get("format")),
        reasoning_effort=request.reasoning_effort,
        verbosity=text.get("verbosity"),
        service_tier=request.echo.get("service_tier"),
    )


def settings_like(request: ResponseRequest, before: CacheSettings | None) -> CacheSettings:
    """The settings of a request: ``before`` itself when they are equal to it."""
    now = settings_of(request)
    return before if before is not None and before == now else now
