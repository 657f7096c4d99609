"""The settings of a request that decide how its prompt begins."""

import msgspec

from tightloop.protocol.requests import ResponseRequest


class CacheSettings(msgspec.Struct, frozen=True):
    """What besides its input decides the beginning of a prompt, in the order of suspicion."""

    model: str
    prompt_cache_key: str | None
    tools: bytes
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
        tools=bytes(request.echo.get("tools") or b""),
        text_format=msgspec.json.encode(text.get("format")),
        reasoning_effort=request.reasoning_effort,
        verbosity=text.get("verbosity"),
        service_tier=request.echo.get("service_tier"),
    )
