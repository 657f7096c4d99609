"""Shortening a context: the oldest go first, pairs stay together, rules and the last item stay."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.server.test_resume import serving
from tests.strategies import items
from tightloop.engine.interface import GenerationRequest, ModelInfo
from tightloop.engine.scripted import ScriptedEngine, text_answer
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OpaquePart,
    Reasoning,
    TextPart,
    user_message,
)
from tightloop.protocol.output_format import OutputFormat
from tightloop.protocol.tools import FunctionTool
from tightloop.server.fitting import (
    UNKNOWN_BYTES,
    fitted,
    is_ground,
    most_tokens,
    setup_of,
    without_oldest,
)

RULES = Message("developer", (TextPart("input_text", "rules"),))
CALL = FunctionCall("c1", "shell", "{}")
OUTPUT = FunctionCallOutput("c1", "a.py")


def test_rules_stay_and_an_output_goes_with_its_call() -> None:
    context: list[Item] = [RULES, user_message("a"), CALL, OUTPUT, user_message("b")]
    assert without_oldest(context, 1) == [RULES, CALL, OUTPUT, user_message("b")]
    assert without_oldest(context, 2) == [RULES, user_message("b")]


def test_the_call_that_was_answered_last_stays() -> None:
    context: list[Item] = [user_message("a"), CALL, user_message("b"), OUTPUT]
    assert without_oldest(context, 2) == [CALL, OUTPUT]


@given(st.lists(items, max_size=8), st.integers(0, 8))
def test_no_output_is_left_without_its_call(context: list[Item], number: int) -> None:
    """That was not so before."""
    left = without_oldest(context, number)
    called = {item.call_id for item in left if isinstance(item, FunctionCall | CustomToolCall)}
    before = {i.call_id for i in context if isinstance(i, FunctionCall | CustomToolCall)}
    for item in left:
        if isinstance(item, FunctionCallOutput | CustomToolCallOutput) and item.call_id in before:
            assert item.call_id in called
    assert [item for item in context if is_ground(item)] == [i for i in left if is_ground(i)]


@pytest.mark.parametrize("limit", [0, 10, 60, 100, 500, 5000])
async def test_a_fitted_request_is_the_longest_that_fits(limit: int) -> None:
    engine = ScriptedEngine()
    context = (RULES, *(user_message("x" * 80) for _ in range(20)))
    request = GenerationRequest("r", "scripted", None, context)
    made = await fitted(engine, request, limit)
    size = await engine.count_input(made)
    num_left = sum(not is_ground(item) for item in made.items)
    assert size <= limit or num_left == 1
    if num_left < 20 and num_left > 1:
        longer = GenerationRequest(
            "r", "scripted", None, tuple(without_oldest(context, 19 - num_left))
        )
        assert await engine.count_input(longer) > limit


class Narrow(ScriptedEngine):
    """A model with a small window."""

    def models(self) -> list[ModelInfo]:
        return [ModelInfo("scripted", "narrow", 1000)]


async def test_truncation_auto_drops_the_oldest_and_disabled_does_not() -> None:
    seen: list[int] = []

    def script(request: GenerationRequest) -> list[object]:
        seen.append(len(request.context()))
        return list(text_answer("ok"))

    input = [{"role": "user", "content": "x" * 400} for _ in range(20)]
    async with serving(script) as c:  # type: ignore[arg-type]
        c.endpoint.backstage.engine = engine = Narrow(script)  # type: ignore[arg-type]
        await c.create(input=input, truncation="auto")
        await c.create(input=input, truncation="auto", max_output_tokens=5000)
        await c.create(input=input)
        await engine.close()
    assert seen[0] == seen[1] < 20
    assert seen[2] == 20


def test_an_image_may_be_any_number_of_tokens() -> None:
    """So the prompt is counted. In bytes it would be nothing, or far too much."""
    image = OpaquePart("input_image", Raw(b'{"type":"input_image","image_url":"data:"}'))
    for item in (Message("user", (image,)), FunctionCallOutput("c1", "", None, (image,))):
        assert most_tokens([item]) > UNKNOWN_BYTES
    assert most_tokens([user_message("abc"), CALL, OUTPUT]) < 1000
    assert most_tokens([FunctionCall("c" * 5000, "f", "{}")]) > 5000
    assert most_tokens([Reasoning((), "x" * 5000)]) > 5000


SETUPS: list[dict[str, Any]] = [
    {},
    {"model": "another"},
    {"instructions": "Be brief."},
    {"tools": (FunctionTool("f", "", {"type": "object"}),)},
    {"tools": (FunctionTool("f", "", {"type": "array"}),)},
    {"tool_choice": "none"},
    {"parallel_tool_calls": False},
    {"output_format": OutputFormat("json_object")},
    {"reasoning_effort": "high"},
]


def test_whatever_a_template_may_write_around_items_is_part_of_the_setup() -> None:
    """A bound that was counted with one model or without tools says nothing of another prompt."""
    plain: dict[str, Any] = {"response_id": "r", "model": "m", "parent": None, "items": ()}
    found = [setup_of(GenerationRequest(**{**plain, **fields})) for fields in SETUPS]
    again = [setup_of(GenerationRequest(**{**plain, **fields})) for fields in SETUPS]
    assert found == again
    assert len(set(found)) == len(SETUPS)
    assert None not in found
    deep: dict[str, Any] = {}
    for _ in range(20_000):
        deep = {"a": deep}
    tools = (FunctionTool("f", "", deep),)
    assert setup_of(GenerationRequest(**plain, tools=tools)) is None
