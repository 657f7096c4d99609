"""Summaries by the bundled model: facts of the conversation, and a way on from them."""

from dataclasses import replace

import pytest
from msgspec import Raw

from tests.engine.collecting import Answer, ask
from tests.engine.families.test_patchling import TOOLS, Conversation, engine_with
from tightloop.engine.families.patchling_policy import Repair, Run, next_step
from tightloop.engine.families.patchling_summary import asks_for_summary, summary_of
from tightloop.engine.interface import GenerationRequest
from tightloop.protocol.compaction import SUMMARY_HEAD
from tightloop.protocol.deltas import FinishReason
from tightloop.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OpaquePart,
    user_message,
)
from tightloop.protocol.output_format import OutputFormat
from tightloop.protocol.requests import Tool, ToolChoice

ASK = user_message("Summarize this conversation so that the work can go on.")


async def summary_after_two_turns(
    tools: tuple[Tool, ...], choice: ToolChoice = "none"
) -> tuple[Answer, Conversation]:
    async with engine_with() as engine:
        talk = Conversation(engine)
        for _ in range(4):
            await talk.turn()
        asked = GenerationRequest(
            "sum", "patchling", talk.node, (*talk.items, ASK), tools=tools, tool_choice=choice
        )
        return await ask(engine, asked), talk


@pytest.mark.parametrize("tools", [(), TOOLS])
async def test_a_summary_of_a_repair_under_way(tools: tuple[Tool, ...]) -> None:
    """Also when the tools are still offered, so that the prompt stays the same."""
    answer, _ = await summary_after_two_turns(tools)
    assert answer.finished.reason is FinishReason.STOP
    assert "Asked for: fix the failing tests" in answer.text
    assert "`python -m pytest -q`" in answer.text
    assert "pkg/mathy.py (1)" in answer.text
    assert "1 failed, 5 passed" in answer.text


async def test_the_work_goes_on_from_a_summary() -> None:
    """Alone, or behind the user's own message: the tests are run first, then it is repaired."""
    answer, _ = await summary_after_two_turns(())
    summary = user_message(SUMMARY_HEAD + answer.text)
    for items in ([summary], [user_message("fix the failing tests"), summary]):
        async with engine_with() as engine:
            talk = Conversation(engine)
            talk.items = tuple(items)
            answers = await talk.until_end()
        assert answers[-1].text == "Fixed: `python -m pytest -q` passes now."


def test_what_the_user_asks_after_a_summary_counts() -> None:
    items: list[Item] = [user_message(SUMMARY_HEAD + "fixed a test"), user_message("hello")]
    step = next_step(items, None, None)
    assert not isinstance(step, Run | Repair)
    assert step.text.startswith("I am patchling")


def test_an_earlier_summary_is_carried_on() -> None:
    earlier = user_message(SUMMARY_HEAD + "the file a.py was read")
    items = [user_message("fix it"), earlier, ASK]
    assert "the file a.py was read" in summary_of(items)
    assert summary_of(items) == summary_of(list(items))


def test_odd_calls_do_not_disturb_a_summary() -> None:
    calls = [
        FunctionCall(f"c{n}", "x", text) for n, text in enumerate(["", "[]", "7", '{"cmd":1}'])
    ]
    outputs = [FunctionCallOutput(call.call_id, "?") for call in calls]
    text = summary_of([*calls, *outputs, ASK])
    assert "Commands run: none." in text
    assert "Asked for: nothing yet" in text


def test_only_the_last_item_asks() -> None:
    assert asks_for_summary([ASK])
    assert not asks_for_summary([ASK, user_message("go on")])
    assert not asks_for_summary([])


async def test_what_this_model_cannot_do_is_refused() -> None:
    image = OpaquePart("input_image", Raw(b'{"type":"input_image","image_url":"data:x"}'))
    plain = GenerationRequest("r", "patchling", None, (user_message("hi"),))
    async with engine_with() as engine:
        json = await ask(engine, replace(plain, output_format=OutputFormat("json_object")))
        seen = await ask(engine, replace(plain, items=(Message("user", (image,)),)))
        assert await engine.count_input(plain) > 0
    assert json.finished.error_code == "unsupported_parameter"
    assert seen.finished.error_code == "unsupported_content"


async def test_no_call_when_none_is_allowed() -> None:
    asked = GenerationRequest(
        "r", "patchling", None, (user_message("fix the test"),), tools=TOOLS, tool_choice="none"
    )
    async with engine_with() as engine:
        answer = await ask(engine, asked)
    assert answer.calls == []
    assert answer.text.startswith("I need a shell tool")
