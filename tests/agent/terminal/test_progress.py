"""Each kind of event and the line a person reads for it."""

import io

from tightloop.agent.events import (
    CHECK,
    AgentMessage,
    ChangedPath,
    CommandExecution,
    Compacted,
    ErrorBody,
    ErrorItem,
    FileChange,
    ImageView,
    ItemCompleted,
    ItemStarted,
    ItemUpdated,
    McpResult,
    McpToolCall,
    Planned,
    Raced,
    Retrying,
    Todo,
    TodoList,
    TurnFailed,
    TurnStarted,
)
from tightloop.agent.terminal.progress import ProgressPrinter
from tightloop.trace.clock import ManualClock


def test_lines() -> None:
    stream, clock = io.StringIO(), ManualClock()
    show = ProgressPrinter(stream, clock)
    show(TurnStarted())
    show(ItemStarted(CommandExecution("item_0", "pytest -q")))
    clock.advance_s(0.25)
    show(ItemUpdated(CommandExecution("item_0", "pytest -q"), output_delta="x"))
    output = "E 1\n\nE 2\n1 failed\n"
    show(ItemCompleted(CommandExecution("item_0", "pytest -q", output, 1, "failed", "warm-pytest")))
    changes = (ChangedPath("a.py", "update"), ChangedPath("b.py", "add"))
    show(ItemCompleted(FileChange("item_1", changes)))
    show(ItemCompleted(FileChange("item_2", (), "failed", "ambiguous\nmore")))
    show(ItemCompleted(ErrorItem("item_3", "no tool")))
    show(ItemCompleted(ErrorItem("item_3", f"{CHECK} `pytest` was run once more\nmore")))
    show(ItemStarted(CommandExecution("item_4", "true\nfalse")))
    show(ItemCompleted(CommandExecution("item_4", "true\nfalse", "", 0, "completed")))
    show(ItemCompleted(CommandExecution("item_5", "sleep 9", "interrupted", None, "failed")))
    show(ItemCompleted(CommandExecution("item_5", "make", "declined: why", None, "declined")))
    show(ItemCompleted(AgentMessage("item_6", "two\nlines\x1b[2J")))
    show(ItemStarted(McpToolCall("item_7", "docs", "find")))
    refused = ErrorBody("declined\nmore")
    show(ItemCompleted(McpToolCall("item_7", "docs", "find", None, None, refused, "failed")))
    said = McpResult(({"type": "text", "text": "no such page\nat all"},))
    show(ItemCompleted(McpToolCall("item_9", "docs", "find", None, said, None, "failed")))
    show(ItemCompleted(McpToolCall("item_9", "docs", "find", None, said, None, "completed")))
    show(ItemCompleted(ImageView("item_10", "plot.png\x1b[2J")))
    show(ItemUpdated(TodoList("item_8", (Todo("look", True), Todo("fix\x1b[2J")))))
    show(Retrying("server overloaded", 1.5, 1, 8))
    show(Retrying("connection lost", 0.0, 0, 8))
    show(Compacted("window", 90_000, 20_400, 120, 14))
    show(TurnFailed(ErrorBody("no end")))
    assert stream.getvalue().splitlines() == [
        "$ pytest -q",
        "  exit 1, 0.25 s, warm-pytest, 1 failed",
        "  | E 1",
        "  | E 2",
        "patch: M a.py, A b.py",
        "patch refused: ambiguous ...",
        "refused: no tool",
        "check: `pytest` was run once more ...",
        "$ true ...",
        "  exit 0, 0.00 s",
        "  no exit, 0.00 s, interrupted",
        "  declined: why",
        "two",
        "lines",
        "docs: find",
        "  declined ...",
        "  no such page ...",
        "  done",
        "looked at plot.png",
        "  [x] look",
        "  [ ] fix",
        "again in 1.5 s: server overloaded",
        "going on: connection lost",
        "compacted the conversation: about 90k to 20k tokens (window)",
        "failed: no end",
    ]


def test_candidates_and_plans_are_lines() -> None:
    """What a candidate begins is told by how it ends."""
    stream = io.StringIO()
    show = ProgressPrinter(stream, ManualClock())
    show(Raced(0, "started"))
    show(Raced(0, "working", "$ pytest -q"))
    show(Raced(0, "working", "exit 1: 1 failed"))
    show(Raced(1, "won", "pytest -q"))
    show(Raced(0, "cancelled"))
    show(Planned("big", 1, "Look\x1b[2K here.", 2.5))
    assert stream.getvalue().splitlines() == [
        "#0 exit 1: 1 failed",
        "#1 won: pytest -q",
        "#0 cancelled",
        "plan 1 by big, 2.5 s:",
        "Look here.",
    ]
