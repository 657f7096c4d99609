"""Turn ids and offsets: what a reader of the stream needs to put pieces in their place."""

from tightloop.agent import events as said
from tightloop.harness.marks import Marks

COMMAND = said.CommandExecution("item_0", "ls")


def test_pieces_say_where_they_belong() -> None:
    """Of each item by itself; a message and a command may come at the same time."""
    marks = Marks()
    pieces = [
        said.ItemUpdated(COMMAND, output_delta="ab"),
        said.ItemUpdated(said.AgentMessage("item_1", ""), text_delta="xyz"),
        said.ItemUpdated(COMMAND, output_delta="c"),
        said.ItemUpdated(said.FileChange("item_2"), patch_delta="*"),
        said.ItemUpdated(COMMAND, output_delta=""),
    ]
    told = [marks(piece) for piece in pieces]
    assert [getattr(event, "offset", None) for event in told] == [0, 0, 2, 0, None]
    marks(said.ItemCompleted(COMMAND))
    assert marks(pieces[0]) == said.ItemUpdated(COMMAND, output_delta="ab", offset=0)


def test_turns_are_counted() -> None:
    marks = Marks()
    assert marks(said.TurnStarted()) == said.TurnStarted("turn_1")
    assert marks.turn_id == "turn_1"
    failed = said.TurnFailed(said.ErrorBody("no"))
    assert marks(failed) == said.TurnFailed(said.ErrorBody("no"), turn_id="turn_1")
    assert marks.turn_id is None
    marks(said.TurnStarted())
    usage = said.UsageBody()
    assert marks(said.TurnCompleted(usage)) == said.TurnCompleted(usage, turn_id="turn_2")


def test_other_events_stay_as_they_are() -> None:
    event = said.ErrorEvent("no")
    assert Marks()(event) is event
