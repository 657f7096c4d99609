"""``update_plan``: one list a turn, started, updated and completed under one id."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.agent.stage import stage
from tightloop.agent.events import (
    Event,
    ItemCompleted,
    ItemStarted,
    ItemUpdated,
    Todo,
    TodoList,
    TurnCompleted,
    TurnFailed,
)
from tightloop.agent.tools.update_plan import UpdatePlan
from tightloop.engine.scripted import call_answer, text_answer


def plan(*steps: tuple[str, str]) -> dict[str, Any]:
    return {"plan": [{"step": text, "status": state} for text, state in steps]}


async def test_a_turn_has_one_list(tmp_path: Path) -> None:
    tool = UpdatePlan()
    answers = [
        call_answer("update_plan", plan(("look", "in_progress"), ("mend", "pending"))),
        call_answer("update_plan", plan(("look", "completed"), ("mend", "in_progress")), "call_2"),
        text_answer("Done."),
    ]
    said: list[Event] = []
    async with stage(tmp_path, answers, tools=[tool]) as on:
        await on.agent.run_turn("go")
        for event in on.heard:  # as a conversation's toolbox does
            if isinstance(event, TurnCompleted | TurnFailed):
                tool.end_turn(said.append)
            said.append(event)
        assert on.outputs() == ["The plan is shown."] * 2
    shown = [event for event in said if isinstance(getattr(event, "item", None), TodoList)]
    kinds = [type(event) for event in shown]
    assert kinds == [ItemStarted, ItemUpdated, ItemCompleted]
    lists = [event.item for event in shown if isinstance(event, ItemStarted | ItemCompleted)]
    first, last = lists
    assert isinstance(first, TodoList)
    assert isinstance(last, TodoList)
    assert first.id == last.id
    assert last.items == (Todo("look", True), Todo("mend", False))
    assert isinstance(said[-1], TurnCompleted)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"plan": []},
        {"plan": "look"},
        {"plan": [{"step": "", "status": "pending"}]},
        {"plan": [{"step": "a", "status": "done"}]},
        {"plan": [3]},
        plan(*[("a", "pending")] * 51),
    ],
)
async def test_what_is_no_plan_is_told(tmp_path: Path, arguments: object) -> None:
    tool = UpdatePlan()
    text = orjson.dumps(arguments).decode()
    assert tool.announce(text, "i") is None
    answers = [call_answer("update_plan", arguments), text_answer("Done.")]
    async with stage(tmp_path, answers, tools=[tool]) as on:
        await on.agent.run_turn("go")
        assert on.outputs()[0].startswith("update_plan: ")
        assert 'Send {"plan"' in on.outputs()[0]
