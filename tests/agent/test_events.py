"""The JSON lines, byte for byte: readers of ``codex exec --json`` depend on the names.

One golden file for each event, and for each kind of item in it. To change the format on purpose, write
the new line into the file by hand, and run ``python -m scripts.exec_events`` for the schema.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from scripts import exec_events
from tightloop.agent import events as said

GOLDEN = Path(__file__).parents[1] / "golden" / "exec_events"

PYTEST = said.CommandExecution("item_1", "pytest -q")
FIGURES = said.TurnFigures(2, 0.5, (0.1, None), (0.01, None), {"client": 0.25, "tool": 0.25})

EVENTS: dict[str, said.Event] = {
    "thread.started": said.ThreadStarted("t-1", {"model": "m"}),
    "turn.started": said.TurnStarted("turn_1"),
    "turn.steer": said.Steered("steer_0", "delivered", "and the docs", 2),
    "turn.retry": said.Retrying("the server is overloaded", 1.5, 1, 8),
    "turn.race": said.Raced(2, "green", "exit 0"),
    "turn.plan": said.Planned("strong", 1, "Look at m.py.", 2.5),
    "thread.compacted": said.Compacted("window", 90000, 20000, 120, 14),
    "item.completed.reasoning": said.ItemCompleted(said.ReasoningItem("item_0", "look first")),
    "item.started.command_execution": said.ItemStarted(PYTEST),
    "item.updated.command_execution": said.ItemUpdated(PYTEST, output_delta="1 failed\n", offset=9),
    "item.completed.command_execution": said.ItemCompleted(
        said.CommandExecution("item_1", "pytest -q", "1 failed\n", 1, "failed", "warm-pytest")
    ),
    "item.updated.file_change": said.ItemUpdated(
        said.FileChange("item_2", (), "in_progress"), patch_delta="*** Begin", offset=0
    ),
    "item.completed.file_change": said.ItemCompleted(
        said.FileChange("item_2", (said.ChangedPath("src/a.py", "update"),))
    ),
    "item.completed.file_change.failed": said.ItemCompleted(
        said.FileChange("item_3", (), "failed", "No file was changed.")
    ),
    "item.updated.agent_message": said.ItemUpdated(
        said.AgentMessage("item_4", ""), text_delta="Do", offset=0
    ),
    "item.completed.agent_message": said.ItemCompleted(
        said.AgentMessage("item_4", 'Done: "\u00e9"')
    ),
    "item.started.mcp_tool_call": said.ItemStarted(
        said.McpToolCall("item_6", "docs", "find", {"word": None})
    ),
    "item.completed.mcp_tool_call": said.ItemCompleted(
        said.McpToolCall(
            "item_6",
            "docs",
            "find",
            {"word": None},
            said.McpResult(({"type": "text", "text": "here"},), {"hits": None}),
            None,
            "completed",
        )
    ),
    "item.completed.mcp_tool_call.failed": said.ItemCompleted(
        said.McpToolCall("item_7", "docs", "find", {}, None, said.ErrorBody("declined"), "failed")
    ),
    "item.updated.todo_list": said.ItemUpdated(
        said.TodoList("item_8", (said.Todo("look", True), said.Todo("fix")))
    ),
    "item.completed.image_view": said.ItemCompleted(said.ImageView("item_9", "shot.png")),
    "item.completed.error": said.ItemCompleted(said.ErrorItem("item_5", "there is no tool 'x'")),
    "turn.completed": said.TurnCompleted(said.UsageBody(10, 5, 3, 1), FIGURES, "turn_1"),
    "turn.failed": said.TurnFailed(said.ErrorBody("no end after 3 s"), turn_id="turn_1"),
    "input.accepted": said.InputAccepted("steer", "7", "turn_1", "steer_0"),
    "input.refused": said.InputRefused("steer", "no turn is running", "8"),
    "error": said.ErrorEvent("cannot connect"),
}


@pytest.mark.parametrize("name", EVENTS)
def test_golden_lines(name: str) -> None:
    assert (GOLDEN / f"{name}.json").read_bytes() == said.as_json(EVENTS[name]) + b"\n"


def test_there_is_a_golden_line_for_every_event_and_every_item() -> None:
    assert {type(event) for event in EVENTS.values()} == set(get_args(said.Event))
    items = {type(event.item) for event in EVENTS.values() if isinstance(event, Item)}
    assert items == set(get_args(said.ThreadItem))
    assert {path.stem for path in GOLDEN.iterdir()} == set(EVENTS)


Item = said.ItemStarted | said.ItemUpdated | said.ItemCompleted


def test_time_is_added_on_request() -> None:
    assert said.as_json(said.TurnStarted(), 0.1234567) == b'{"type":"turn.started","t":0.123457}'


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_every_line_has_a_type_first(event: said.Event) -> None:
    assert said.as_json(event).startswith(b'{"type":"')


def test_the_schema_in_the_package_is_that_of_the_structs() -> None:
    """After a change: ``python -m scripts.exec_events``."""
    assert exec_events.PATH.read_text("utf-8") == exec_events.text()


@pytest.mark.parametrize("name", EVENTS)
def test_every_line_matches_the_schema(name: str) -> None:
    validator = Draft202012Validator(json.loads(exec_events.PATH.read_text("utf-8")))
    line = json.loads(said.as_json(EVENTS[name], 1.5))
    assert [error.message for error in validator.iter_errors(line)] == []


@pytest.mark.parametrize(
    "line",
    [
        {"type": "turn.begun"},
        {"type": "turn.failed", "error": "no"},
        {"type": "item.completed", "item": {"type": "agent_message", "id": "item_0"}},
        {"type": "turn.started", "t": "soon"},
    ],
)
def test_the_schema_refuses_what_is_no_event(line: dict[str, Any]) -> None:
    validator = Draft202012Validator(json.loads(exec_events.PATH.read_text("utf-8")))
    assert list(validator.iter_errors(line))


CODEX_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "agent_message": {"text": str},
    "reasoning": {"text": str},
    "command_execution": {
        "command": str, "aggregated_output": str, "exit_code": (int, type(None)), "status": str,
    },
    "file_change": {"changes": list, "status": str},
    "mcp_tool_call": {"server": str, "tool": str, "status": str},
    "todo_list": {"items": list},
    "error": {"message": str},
}  # fmt: skip


def _codex_reading(line: dict[str, Any]) -> Iterator[str]:
    """What a reader of the original format would miss; it knows no other type and no other key."""
    kind = line["type"]
    if kind == "thread.started":
        yield from () if isinstance(line["thread_id"], str) else ["thread_id"]
    elif kind == "turn.completed":
        for key in ("input_tokens", "cached_input_tokens", "output_tokens"):
            yield from () if isinstance(line["usage"][key], int) else [key]
    elif kind == "turn.failed":
        yield from () if isinstance(line["error"]["message"], str) else ["error"]
    elif kind == "error":
        yield from () if isinstance(line["message"], str) else ["message"]
    elif kind in ("item.started", "item.updated", "item.completed"):
        item = line["item"]
        yield from () if isinstance(item["id"], str) else ["id"]
        for key, wanted in CODEX_FIELDS.get(item["type"], {}).items():
            yield from () if isinstance(item[key], wanted) else [f"{item['type']}.{key}"]


@pytest.mark.parametrize("name", EVENTS)
def test_a_reader_of_the_original_format_finds_what_it_looks_for(name: str) -> None:
    """Fields and types of openai/codex, ``codex-rs/exec/src/exec_events.rs``."""
    assert list(_codex_reading(json.loads(said.as_json(EVENTS[name], 0.0)))) == []
