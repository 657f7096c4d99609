"""Events become rows, each once, in an order that is never torn."""

from collections.abc import Sequence

import pytest

from tightloop.agent import events as said
from tightloop.cli.chat.transcript import Transcript
from tightloop.trace.clock import ManualClock

WIDTH = 60


class Watched:
    """A transcript, and the scrollback that it has filled."""

    def __init__(self) -> None:
        self.transcript = Transcript(ManualClock())
        self.scrollback: list[str] = []

    def hear(self, *events: said.Event) -> "Watched":
        """Each event, with a frame behind it."""
        for event in events:
            self.transcript.hear(event)
            self.frame()
        return self

    def frame(self) -> None:
        self.scrollback += [row.plain for row in self.transcript.settled(WIDTH)]

    @property
    def live(self) -> list[str]:
        return [row.plain for row in self.transcript.live(WIDTH, 50)]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def spoken(text: str) -> said.ItemUpdated:
    return said.ItemUpdated(said.AgentMessage("item_0", ""), text_delta=text)


def command(item_id: str, line: str, **more: object) -> said.CommandExecution:
    return said.CommandExecution(item_id, line, **more)  # type: ignore[arg-type]


def written(item_id: str, text: str) -> said.ItemUpdated:
    item = said.FileChange(item_id, status="in_progress")
    return said.ItemUpdated(item, patch_delta=text)


PATCH = "*** Begin Patch\n*** Update File: m.py\n@@\n-x = 1\n+x = 2\n*** End Patch"


def test_text_settles_row_by_row(watched: Watched) -> None:
    watched.hear(spoken("One.\n\nTw"))
    assert watched.scrollback == ["", "One."]
    assert "Tw" in watched.live
    watched.hear(spoken("o."), said.ItemCompleted(said.AgentMessage("item_0", "One.\n\nTwo.")))
    assert watched.scrollback == ["", "One.", "", "Two."]
    assert watched.live == []
    assert watched.transcript.is_empty


def test_text_that_came_whole(watched: Watched) -> None:
    watched.hear(said.ItemCompleted(said.AgentMessage("item_0", "Hello.")))
    assert watched.scrollback == ["", "Hello."]


def test_a_command_settles_at_its_end(watched: Watched) -> None:
    watched.hear(said.ItemStarted(command("a", "ls")))
    watched.hear(said.ItemUpdated(command("a", "ls"), output_delta="one\ntw"))
    assert (watched.scrollback, watched.live) == ([], ["$ ls", "  one", "  tw"])
    watched.hear(said.ItemCompleted(command("a", "ls", aggregated_output="one\ntwo", exit_code=0)))
    assert watched.scrollback[:3] == ["$ ls", "  one", "  tw"]
    assert watched.scrollback[3].startswith("  exit 0")


def test_output_that_came_whole(watched: Watched) -> None:
    done = command("a", "ls", aggregated_output="one\n", exit_code=1, status="failed")
    watched.hear(said.ItemCompleted(done))
    assert watched.scrollback[:2] == ["$ ls", "  one"]
    assert watched.scrollback[2].startswith("  exit 1")


def test_a_patch_is_shown_as_it_is_written(watched: Watched) -> None:
    for start in range(0, len(PATCH), 7):
        watched.hear(written("a", PATCH[start : start + 7]))
    assert watched.scrollback == ["M m.py", "  @@", "  - x = 1", "  + x = 2"]
    watched.hear(said.ItemCompleted(said.FileChange("a", (said.ChangedPath("m.py", "update"),))))
    assert watched.scrollback == ["M m.py", "  @@", "  - x = 1", "  + x = 2"]
    assert watched.transcript.is_empty


def test_a_refused_patch_says_why(watched: Watched) -> None:
    why = "no such lines\n" + "\n".join(f"row {n}" for n in range(20))
    refused = said.FileChange("a", (), "failed", why)
    watched.hear(written("a", PATCH), said.ItemCompleted(refused))
    assert "patch refused: no such lines" in watched.scrollback
    assert watched.scrollback[-1] == "... 12 more rows"


def test_a_patch_that_nobody_saw_written(watched: Watched) -> None:
    changes = (said.ChangedPath("a", "add"), said.ChangedPath("b", "delete"))
    watched.hear(said.ItemCompleted(said.FileChange("a", changes)))
    assert watched.scrollback == ["A a", "D b"]


def test_the_first_strand_is_not_torn(watched: Watched) -> None:
    """A patch that is written while a command runs waits in the live region for its end."""
    watched.hear(said.ItemStarted(command("a", "make")), written("b", PATCH))
    assert watched.scrollback == []
    assert watched.live[0] == "$ make"
    watched.hear(said.ItemCompleted(command("a", "make", exit_code=0)))
    assert [row.split(",")[0] for row in watched.scrollback] == [
        "$ make", "  exit 0", "M m.py", "  @@", "  - x = 1", "  + x = 2",
    ]  # fmt: skip


def test_commands_side_by_side_keep_their_order(watched: Watched) -> None:
    watched.hear(said.ItemStarted(command("a", "one")), said.ItemStarted(command("b", "two")))
    watched.hear(said.ItemCompleted(command("b", "two", exit_code=0)))
    assert watched.scrollback == []
    watched.hear(said.ItemCompleted(command("a", "one", exit_code=0)))
    assert [row for row in watched.scrollback if row.startswith("$")] == ["$ one", "$ two"]


@pytest.mark.parametrize(
    "closing",
    [
        said.TurnFailed(said.ErrorBody("interrupted")),
        said.TurnCompleted(said.UsageBody()),
    ],
)
def test_the_end_of_the_turn_closes_everything(watched: Watched, closing: said.Event) -> None:
    call = said.McpToolCall("c", "docs", "find")
    watched.hear(said.ItemStarted(command("a", "make")), written("b", PATCH))
    watched.hear(said.ItemStarted(call), spoken("half a"), closing)
    assert watched.transcript.is_empty
    assert "half a" in watched.scrollback
    assert ("interrupted" in watched.scrollback) == isinstance(closing, said.TurnFailed)


def test_other_items(watched: Watched) -> None:
    call = said.McpToolCall("c", "docs", "find", {"q": "x"})
    failed = said.McpToolCall("c", "docs", "find", {"q": "x"}, None, said.ErrorBody("no"), "failed")
    watched.hear(said.ItemStarted(call))
    assert watched.live == ['docs.find {"q": "x"}']
    watched.hear(
        said.ItemCompleted(failed),
        said.ItemCompleted(said.ReasoningItem("r", "I think.")),
        said.ItemCompleted(said.ErrorItem("e", f"{said.CHECK} pytest fails")),
        said.ItemCompleted(said.ErrorItem("e", "there is no tool 'x'")),
        said.ItemCompleted(said.ImageView("i", "a.png")),
        said.ItemStarted(said.TodoList("t", (said.Todo("a", True), said.Todo("b")))),
        said.TurnFailed(said.ErrorBody("it broke")),
    )
    assert watched.scrollback == [
        'docs.find {"q": "x"}', "  no", "", "I think.", "check: pytest fails",
        "there is no tool 'x'", "looks at a.png", "", "[x] a", "[ ] b", "failed: it broke",
    ]  # fmt: skip


def test_nothing_that_was_shown_is_kept(watched: Watched) -> None:
    """A long session costs no memory here: no strand is left, nor anything to find one by."""
    for number in range(200):
        name = f"item_{number}"
        watched.hear(said.ItemStarted(command(name, "ls")), spoken("text " * 50))
        watched.hear(said.ItemCompleted(command(name, "ls", exit_code=0)))
        watched.hear(said.ItemCompleted(said.AgentMessage(name, "text " * 50)))
        watched.hear(written(name, PATCH), said.ItemCompleted(said.FileChange(name)))
        watched.hear(said.TurnCompleted(said.UsageBody()))
    kept = [value for name, value in vars(watched.transcript).items() if name != "_clock"]
    assert [len(value) for value in kept if isinstance(value, Sequence | dict)] == [0, 0, 0, 0]
    assert watched.transcript.is_empty
