"""Conversations as they are written: what was settled, what was only begun, what a kill leaves."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tightloop.harness.past import CUT_TEXT, load
from tightloop.harness.record import Inherited, Record
from tightloop.protocol.items import (
    CustomToolCall,
    FunctionCall,
    FunctionCallOutput,
    Message,
    OpaqueItem,
    TextPart,
    user_message,
)
from tightloop.sandbox.entries import Change, Entry

Make = Callable[..., Record]
CHANGES = (
    Change("a", None, Entry(b"\0new", is_executable=True)),
    Change("b", Entry(b"x"), None),
)


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Make]:
    """Makes records, which are closed in the end."""
    with ExitStack() as stack:

        def make(
            name: str = "abc",
            redact: Callable[[str], str] = str,
            inherited: Inherited | None = None,
        ) -> Record:
            labels = {"repository": "/somewhere", "model": "m", "choice": {"server": "http://h"}}
            made = Record(tmp_path, name, redact, inherited=inherited, **labels)
            return stack.enter_context(closing(made))

        yield make


def test_what_was_settled_and_done_comes_back(tmp_path: Path, record: Make) -> None:
    """Calls that had not ended get an output; ids of another server's items are gone."""
    first, call = user_message("fix it"), FunctionCall("c1", "exec_command", "{}", id="fc_1")
    one = record()
    one.turn()
    one.settled([first])
    one.done(call)
    past = load(tmp_path, "abc")
    bare = FunctionCall("c1", "exec_command", "{}")
    assert past.items == (first, bare, FunctionCallOutput("c1", CUT_TEXT))
    assert (past.repository, past.model, past.title) == (Path("/somewhere"), "m", "fix it")
    assert (past.num_turns, past.choice) == (1, {"server": "http://h"})
    output = FunctionCallOutput("c1", "fine")
    one.done(output)
    one.settled([first, call, output])
    one.settled([first, call, output, user_message("more")])
    assert load(tmp_path, "last").items == (first, bare, output, user_message("more"))
    one.settled([user_message("a summary")])
    one.close()
    past = load(tmp_path, "abc")
    assert (past.items, past.title) == ((user_message("a summary"),), "fix it")


def test_a_conversation_in_which_nothing_was_said_is_not_kept(tmp_path: Path, record: Make) -> None:
    one = record()
    assert not one.is_there
    one.settled([])
    one.close()
    assert not one.is_there
    assert not (tmp_path / "threads").exists()


def test_secrets_are_not_kept(tmp_path: Path, record: Make) -> None:
    """A call whose arguments had one is marked: what is kept of it must not be run again."""
    one = record(redact=lambda text: text.replace("hush", "***"))
    one.settled([user_message("my key is hush")])
    one.done(CustomToolCall("c1", "apply_patch", "+key = hush"))
    one.done(CustomToolCall("c2", "apply_patch", "+key = 1"))
    assert "hush" not in (tmp_path / "threads" / "abc.jsonl").read_text()
    past = load(tmp_path, "abc")
    assert (past.title, past.masked) == ("my key is ***", frozenset({"c1"}))


def test_changes_and_what_they_may_lack(tmp_path: Path, record: Make) -> None:
    """Calls count as covered by the changes once they had ended before these were read."""
    one = record()
    call, output = FunctionCall("c1", "t", "{}"), FunctionCallOutput("c1", "")
    one.settled([user_message("go"), call, output])
    assert load(tmp_path, "abc").missing == ("c1",)
    one.write_changes(CHANGES, one.answered)
    assert (load(tmp_path, "abc").changes, load(tmp_path, "abc").missing) == (CHANGES, ())
    one.done(FunctionCall("c2", "t", "{}"))
    assert (list(one.answered), list(one.running)) == (["c1"], ["c2"])
    one.write_changes(CHANGES[:1], one.answered, one.running)
    past = load(tmp_path, "abc")
    assert (past.missing, past.unsure, past.num_missing) == (("c2",), frozenset({"c2"}), 1)
    one.done(FunctionCallOutput("c2", ""))
    one.checkpoint(one.answered)
    assert load(tmp_path, "abc").missing == ()
    one.settled([user_message("a summary")])
    assert load(tmp_path, "abc").missing == ()


def test_changes_that_were_replaced_do_not_count_for_calls_of_before(
    tmp_path: Path, record: Make
) -> None:
    """A kill between the file and its line: the line of the former file says nothing of this one."""
    one = record()
    one.settled([user_message("go"), FunctionCall("c1", "t", "{}"), FunctionCallOutput("c1", "")])
    one.checkpoint(one.answered)
    assert load(tmp_path, "abc").missing == ()
    one.write_changes(CHANGES)
    assert load(tmp_path, "abc").missing == ("c1",)


def test_a_fork_begins_with_the_work_of_its_origin(tmp_path: Path, record: Make) -> None:
    """With its first line, so that a kill right behind it loses nothing."""
    inherited = Inherited(CHANGES, ("c1",), (), ("c9",))
    one = record(inherited=inherited)
    one.settled([user_message("go"), FunctionCall("c1", "t", "{}"), FunctionCallOutput("c1", "")])
    past = load(tmp_path, "abc")
    assert (past.changes, past.missing, past.masked) == (CHANGES, (), frozenset({"c9"}))
    assert (past.inherited.changes, past.inherited.covered) == (CHANGES, ("c1",))


def test_a_line_that_was_cut_is_no_damage(tmp_path: Path, record: Make) -> None:
    """Neither for a reader, nor for who writes on behind it."""
    one = record()
    one.settled([user_message("go")])
    path = tmp_path / "threads" / "abc.jsonl"
    path.write_bytes(path.read_bytes() + b'{"kind":"don')
    assert load(tmp_path, "abc").items == (user_message("go"),)
    two = record()
    two.settled([user_message("go"), user_message("on")])
    assert load(tmp_path, "abc").items == (user_message("go"), user_message("on"))


def test_items_that_only_their_server_can_read_are_left_out(tmp_path: Path, record: Make) -> None:
    one = record()
    opaque = OpaqueItem("web_search_call", b'{"type":"web_search_call","id":"ws_1"}')  # type: ignore[arg-type]
    said = Message("assistant", (TextPart("output_text", "hi"),), id="msg_1")
    one.settled([opaque, said])
    assert load(tmp_path, "abc").items == (Message("assistant", said.content),)


def test_an_output_without_its_call_is_left_out(tmp_path: Path, record: Make) -> None:
    """A summary stands for the call, and a strict server refuses what is left."""
    one = record()
    one.settled([FunctionCallOutput("c1", "late"), user_message("go")])
    assert load(tmp_path, "abc").items == (user_message("go"),)
