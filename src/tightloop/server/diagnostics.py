"""Why a prompt cache was, or was not, of use: ``prompt_cache_diagnostics`` of a response.

A client that asks (``prompt_cache_options``) is told whether the prefix it shares with an earlier
response was found warm, and if not, which of its own settings changed. Only those are looked at that
change what a model reads. Source: the Responses API's reference, prompt caching.
"""

from collections.abc import Iterable
from typing import Any, Final

from tightloop.protocol.deltas import Usage
from tightloop.protocol.items import Compaction, Item
from tightloop.protocol.requests import ResponseRequest
from tightloop.server.cache_settings import CacheSettings, settings_of
from tightloop.server.conversations import Record

NOT_FOUND: Final = {"type": "comparison_response_not_found"}
UNAVAILABLE: Final = {"type": "unavailable"}


def diagnose(
    request: ResponseRequest, compared: Record | None, usage: Usage, output: Iterable[Item]
) -> dict[str, Any] | None:
    """The diagnostics, or None when there is nothing to compare with.

    ``compared`` is the response named, or the parent. A hit is a prompt of which at least as much
    was cached as the compared response had for its own prompt.
    """
    if compared is None:
        return NOT_FOUND if request.compared_with else None
    before = compared.settings
    if before is None:
        return UNAVAILABLE
    expected = compared.node.usage.input_tokens
    if usage.cached_tokens and usage.cached_tokens >= expected:
        return {"type": "cache_hit"}
    now = settings_of(request)
    changed = (
        name
        for name in CacheSettings.__struct_fields__
        if getattr(before, name) != getattr(now, name)
    )
    is_compacted = any(isinstance(item, Compaction) for item in output)
    reason = "context_compacted" if is_compacted else next(changed, "input")
    return {
        "type": "cache_miss",
        "reason": reason if is_compacted else f"{reason}_changed",
        "cache_missed_tokens": max(0, expected - usage.cached_tokens),
    }
