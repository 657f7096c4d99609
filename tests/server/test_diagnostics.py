"""What a client is told about the prompt cache, if it asks."""

from typing import Any

import pytest

from tests.server.wire import Wire
from tightloop.engine.interface import GenerationRequest
from tightloop.engine.scripted import Answer, ScriptedEngine
from tightloop.protocol.deltas import Finished, FinishReason, TextDelta, Usage
from tightloop.server.endpoint import Endpoint

ASKED: dict[str, Any] = {"prompt_cache_options": {"mode": "implicit"}}


def caching(*cached: int) -> Wire:
    """Responses of 100 input tokens, of which so many were cached."""
    remaining = list(cached)

    def script(_request: GenerationRequest) -> Answer:
        usage = Usage(100, remaining.pop(0), 1)
        return [TextDelta("a"), Finished(FinishReason.STOP, usage)]

    return Wire(Endpoint(ScriptedEngine(script)))


async def second(wire: Wire, first: dict[str, Any], then: dict[str, Any]) -> Any:
    """Diagnostics of a response that continues another."""
    wire.create(**first)
    parent = (await wire.end())["response"]["id"]
    asked = {"type": "response.create", "model": "scripted", "previous_response_id": parent}
    wire.send({**asked, "input": "b", **ASKED, **then})
    return (await wire.end(2))["response"].get("prompt_cache_diagnostics")


async def test_a_warm_prefix_is_a_hit() -> None:
    assert await second(caching(0, 100), {}, {}) == {"type": "cache_hit"}


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ({}, "input_changed"),
        ({"tools": [{"type": "function", "name": "f"}]}, "tools_changed"),
        ({"text": {"format": {"type": "json_object"}}}, "text_format_changed"),
        ({"text": {"verbosity": "low"}}, "verbosity_changed"),
        ({"reasoning": {"effort": "high"}}, "reasoning_effort_changed"),
        ({"prompt_cache_key": "k"}, "prompt_cache_key_changed"),
        ({"service_tier": "flex"}, "service_tier_changed"),
    ],
)
async def test_a_miss_names_the_setting_that_changed(then: dict[str, Any], reason: str) -> None:
    expected = {"type": "cache_miss", "reason": reason, "cache_missed_tokens": 60}
    assert expected == await second(caching(0, 40), {}, then)


async def test_a_named_response_is_compared_with() -> None:
    wire = caching(0, 0, 100)
    wire.create()
    first = (await wire.end())["response"]["id"]
    wire.create()
    await wire.end(2)
    wire.create(prompt_cache_options={"comparison_response_id": first})
    diagnostics = (await wire.end(3))["response"]["prompt_cache_diagnostics"]
    assert diagnostics == {"type": "cache_hit"}


async def test_an_unknown_response_cannot_be_compared_with() -> None:
    wire = caching(0)
    wire.create(prompt_cache_options={"comparison_response_id": "resp_none"})
    found = (await wire.end())["response"]["prompt_cache_diagnostics"]
    assert found == {"type": "comparison_response_not_found"}


async def test_those_who_do_not_ask_are_not_told() -> None:
    wire = caching(0, 0)
    wire.create()
    parent = (await wire.end())["response"]["id"]
    wire.create(previous_response_id=parent)
    assert "prompt_cache_diagnostics" not in (await wire.end(2))["response"]
