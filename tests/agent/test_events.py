"""The JSON lines, byte for byte: readers of ``codex exec --json`` depend on the names."""

from pathlib import Path

import pytest

from tightloop.agent import events as said

GOLDEN = Path(__file__).parents[1] / "golden" / "exec_events.jsonl"

EVENTS: list[said.Event] = [
    said.ThreadStarted("t-1", {"model": "m"}),
    said.TurnStarted(),
    said.ItemCompleted(said.ReasoningItem("item_0", "look first")),
    said.ItemStarted(said.CommandExecution("item_1", "pytest -q")),
    said.ItemUpdated(said.CommandExecution("item_1", "pytest -q"), output_delta="1 failed\n"),
    said.ItemCompleted(
        said.CommandExecution("item_1", "pytest -q", "1 failed\n", 1, "failed", "warm-pytest")
    ),
    said.ItemCompleted(said.FileChange("item_2", (said.ChangedPath("src/a.py", "update"),))),
    said.ItemCompleted(said.FileChange("item_3", (), "failed", "No file was changed.")),
    said.ItemUpdated(said.AgentMessage("item_4", ""), text_delta="Do"),
    said.ItemCompleted(said.AgentMessage("item_4", 'Done: "\u00e9"')),
    said.ItemCompleted(said.ErrorItem("item_5", "there is no tool 'x'")),
    said.TurnCompleted(
        said.UsageBody(10, 5, 3, 1),
        said.TurnFigures(2, 0.5, (0.1, None), (0.01, None), {"client": 0.25, "tool": 0.25}),
    ),
    said.TurnFailed(said.ErrorBody("no end after 3 s")),
    said.ErrorEvent("cannot connect"),
]


def test_golden_lines() -> None:
    """To change the format on purpose, write the new lines into the golden file by hand."""
    assert GOLDEN.read_bytes().splitlines() == [said.as_json(event) for event in EVENTS]


def test_time_is_added_on_request() -> None:
    assert said.as_json(said.TurnStarted(), 0.1234567) == b'{"type":"turn.started","t":0.123457}'


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_line_has_a_type_first(event: said.Event) -> None:
    assert said.as_json(event).startswith(b'{"type":"')
