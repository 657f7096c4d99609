"""Conversations on disk: what was settled, what was only begun, and damaged files."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tightloop.harness.record import CUT_TEXT, NoSuchThread, Record, list_past, load
from tightloop.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    Message,
    OpaqueItem,
    TextPart,
    user_message,
)
from tightloop.sandbox.entries import Change, Entry

Make = Callable[..., Record]


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Make]:
    """Makes records, which are closed in the end."""
    with ExitStack() as stack:

        def make(name: str = "abc", redact: Callable[[str], str] = str) -> Record:
            return stack.enter_context(
                closing(Record(tmp_path, name, redact, repository="/somewhere", model="m"))
            )

        yield make


def test_what_was_settled_and_done_comes_back(tmp_path: Path, record: Make) -> None:
    """Calls that had not ended get an output; ids of another server's items are gone."""
    first, call = user_message("fix it"), FunctionCall("c1", "exec_command", "{}", id="fc_1")
    one = record()
    one.settled([first])
    one.done(call)
    past = load(tmp_path, "abc")
    bare = FunctionCall("c1", "exec_command", "{}")
    assert past.items == (first, bare, FunctionCallOutput("c1", CUT_TEXT))
    assert (past.repository, past.model, past.title) == (Path("/somewhere"), "m", "fix it")
    output = FunctionCallOutput("c1", "fine")
    one.done(output)
    one.settled([first, call, output])
    one.settled([first, call, output, user_message("more")])
    assert load(tmp_path, "last").items == (first, bare, output, user_message("more"))
    one.settled([user_message("a summary")])
    one.close()
    assert load(tmp_path, "abc").items == (user_message("a summary"),)


def test_secrets_are_not_kept(tmp_path: Path, record: Make) -> None:
    one = record(redact=lambda text: text.replace("hush", "***"))
    one.settled([user_message("my key is hush")])
    assert "hush" not in (tmp_path / "threads" / "abc.jsonl").read_text()
    assert load(tmp_path, "abc").title == "my key is ***"


def test_changes_and_what_they_may_lack(tmp_path: Path, record: Make) -> None:
    one = record()
    changes = [
        Change("a", None, Entry(b"\0new", is_executable=True)),
        Change("b", Entry(b"x"), None),
    ]
    one.settled([user_message("go"), FunctionCall("c1", "t", "{}"), FunctionCallOutput("c1", "")])
    one.write_changes(changes)
    one.checkpoint(one.num_items)
    assert (load(tmp_path, "abc").changes, load(tmp_path, "abc").num_missing) == (tuple(changes), 0)
    one.done(FunctionCall("c2", "t", "{}"))
    assert load(tmp_path, "abc").num_missing == 1


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    for name in ("last", "abc", "../abc"):
        with pytest.raises(NoSuchThread):
            load(tmp_path, name)
    assert list_past(tmp_path) == []


@pytest.mark.parametrize("damage", [b"{", b"[]\n{}\n", b'{"kind": "items"}\n{}\n'])
def test_damaged_files_are_named_and_hide_no_other(
    tmp_path: Path, record: Make, damage: bytes
) -> None:
    record("good")
    path = tmp_path / "threads" / "bad.jsonl"
    path.write_bytes(damage)
    with pytest.raises(NoSuchThread, match=r"bad\.jsonl"):
        load(tmp_path, "bad")
    assert [past.id for past in list_past(tmp_path)] == ["good"]


def test_a_line_that_was_cut_is_no_damage(tmp_path: Path, record: Make) -> None:
    one = record()
    one.settled([user_message("go")])
    path = tmp_path / "threads" / "abc.jsonl"
    path.write_bytes(path.read_bytes() + b'{"kind":"don')
    assert load(tmp_path, "abc").items == (user_message("go"),)


def test_items_that_only_their_server_can_read_are_left_out(tmp_path: Path, record: Make) -> None:
    one = record()
    opaque = OpaqueItem("web_search_call", b'{"type":"web_search_call","id":"ws_1"}')  # type: ignore[arg-type]
    said = Message("assistant", (TextPart("output_text", "hi"),), id="msg_1")
    one.settled([opaque, said])
    assert load(tmp_path, "abc").items == (Message("assistant", said.content),)
