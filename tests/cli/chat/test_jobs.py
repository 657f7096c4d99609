"""What commands say; what they do is seen in test_screens."""

from pathlib import Path

from tightloop.cli.chat.jobs import _listing, compacted_text, recap
from tightloop.harness.listing import Summary
from tightloop.harness.past import Past
from tightloop.protocol.items import Message, TextPart


def said(role: str, text: str) -> Message:
    kind = "output_text" if role == "assistant" else "input_text"
    return Message(role, (TextPart(kind, text),))


def summary(thread_id: str, **more: object) -> Summary:
    fields = {"title": "fix it", "num_turns": 2, "changed": (), "is_open": False} | more
    return Summary(thread_id, Path("/r"), "m", "2026-11-23T10:02:03.000", 0, **fields)  # type: ignore[arg-type]


def test_a_list_of_conversations() -> None:
    """The one that is open is not in it."""
    rows = _listing(
        [
            summary("a"),
            summary("b", changed=("x",), num_turns=1),
            summary("c", is_open=True, title=""),
        ],
        "a",
    )
    assert [row.plain for row in rows] == [
        "1  fix it  2026-11-23 10:02, 1 turn, 1 not applied",
        "2  (nothing said)  2026-11-23 10:02, 2 turns, open in another process",
        "/resume NUMBER goes on with it",
    ]
    assert "no other conversation" in _listing([summary("a")], "a")[0].plain


def test_where_a_conversation_stands() -> None:
    items = (
        said("developer", "rules"), said("user", "first"), said("assistant", "One."),
        said("user", "second"), said("assistant", "\n".join(f"row {n}" for n in range(20))),
    )  # fmt: skip
    past = Past("id", Path("/r"), "m", "", "first", 2, items, ())
    rows = [row.plain for row in recap(past)]
    assert rows[:4] == ["going on with: first (2 turns)", "", "> second", "row 0"]
    assert rows[-1] == "... 8 more rows"


def test_compaction() -> None:
    assert compacted_text(9000, 800) == "the conversation was compacted: 9000 tokens are 800 now"
    assert compacted_text(None, 800) == "the conversation was compacted"
