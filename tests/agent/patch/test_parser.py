"""Patch text to operations and events; random text gives a patch or a refusal, never a crash."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.agent.patch.failure import PatchError
from tightloop.agent.patch.operations import (
    AddFile,
    Chunk,
    ChunkClosed,
    ChunkGrew,
    ChunkLine,
    DeleteFile,
    FileClosed,
    FileSeen,
    PatchEnded,
    UpdateFile,
)
from tightloop.agent.patch.parser import PatchParser, State, parse_patch


def _wrap(body: str) -> str:
    return f"*** Begin Patch\n{body}*** End Patch"


def test_every_operation() -> None:
    patch = parse_patch(
        _wrap(
            "*** Environment ID: e1\n*** Add File: a\n+1\n*** Delete File: b\n"
            "*** Update File: c\n*** Move to: d\n@@ x\n@@ y\n k\n-o\n+n\n*** End of File\n"
        )
    )
    chunk = Chunk(
        (ChunkLine(" ", "k"), ChunkLine("-", "o"), ChunkLine("+", "n")), ("x", "y"), True, 0, 1, 8
    )
    assert patch.environment_id == "e1"
    assert patch.operations == (
        AddFile("a", ("1",), 3),
        DeleteFile("b", 5),
        UpdateFile("c", (chunk,), "d", 6),
    )


def test_events_come_as_soon_as_they_are_known() -> None:
    parser = PatchParser()
    assert parser.feed("*** Begin Patch\n*** Update File: f\n") == [FileSeen("update", "f", 2)]
    grown = parser.feed("@@ x\n-a\n+b\n")
    assert grown == [
        ChunkGrew(ChunkLine("-", "a"), ("x",), 1, 3),
        ChunkGrew(ChunkLine("+", "b"), ("x",), 1, 3),
    ]
    first, _, second = parser.feed("@@\n-c\n*** Delete File: g\n")[:3]
    assert isinstance(first, ChunkClosed)
    assert isinstance(second, ChunkClosed)
    assert (first.chunk.number, second.chunk.number) == (1, 2)
    assert parser.feed("*** End Patch\n") == [PatchEnded()]
    assert parser.is_ended
    assert parser.finish() == []


def test_a_padded_end_is_held_until_the_next_line_decides() -> None:
    """Content when something follows, the end when nothing does."""
    parser = PatchParser()
    parser.feed("*** Begin Patch\n*** Update File: f\n@@\n-a\n *** End Patch\n")
    assert parser.feed("\n") == []
    grown = parser.feed("+b\n")
    texts = [event.line.text for event in grown if isinstance(event, ChunkGrew)]
    assert texts == ["*** End Patch", "", "b"]
    closing = parser.feed("*** End Patch\n")
    assert isinstance(closing[0], ChunkClosed)
    assert [line.text for line in closing[0].chunk.lines] == ["a", "*** End Patch", "", "b"]
    assert isinstance(closing[1], FileClosed)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "empty"),
        ("hello\n", 1, "first line"),
        (_wrap("*** Frob: x\n"), 2, "'*** Add File: PATH'"),
        (_wrap("*** Update File: f\n@@\n"), 3, "no change lines"),
        (_wrap("*** Update File: f\n@@nope\n+a\n"), 3, "must start with"),
        (_wrap("*** Update File: f\n-a\nplain\n"), 4, "'plain'"),
        (_wrap("*** Update File: f\n-a\n*** End of File\n-b\n"), 5, "'@@'"),
        (_wrap("*** Add File: f\n+a\nb\n"), 4, "must start with '+'"),
        ("*** Begin Patch\n*** Delete File: f\n", 2, "last line"),
    ],
)
def test_refusals_name_line_and_fault(text: str, line: int | None, words: str) -> None:
    with pytest.raises(PatchError) as caught:
        parse_patch(text)
    failure = caught.value.failure
    assert (failure.error, failure.patch_line) == ("bad_syntax", line)
    assert words in failure.message


def test_after_a_bad_line_the_rest_is_ignored() -> None:
    parser = PatchParser()
    parser.feed("nonsense\n")
    assert parser.feed("*** Begin Patch\n*** Delete File: f\n") == []
    assert parser.failure is not None


LINES = st.sampled_from(
    [
        "*** Begin Patch", "*** End Patch", " *** End Patch", "*** Add File: a", "@@", "@@ x",
        "*** Update File: b", "*** Delete File: c", "*** Move to: d", "*** End of File", "+a", "-a",
        " a", "", "junk", "<<EOF", "EOF", "*** Environment ID: e",
    ]
)  # fmt: skip


@given(st.lists(LINES, max_size=12), st.data())
def test_any_lines_cut_anywhere(lines: list[str], data: st.DataObject) -> None:
    """Random lines give the same events and the same end however they are cut."""
    text = "*** Begin Patch\n" + "\n".join(lines)
    whole = PatchParser()
    expected = whole.feed(text) + whole.finish()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    cut = PatchParser()
    events = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        events += cut.feed(text[start:end])
    events += cut.finish()
    assert expected == events
    assert str(whole.failure) == str(cut.failure)


@given(st.text(max_size=60))
def test_any_text_is_refused_politely(text: str) -> None:
    with pytest.raises(PatchError):
        parse_patch(text)


def test_how_much_of_the_open_part_is_here() -> None:
    """Counted from the header or ``@@`` line that opened it, in whole lines."""
    parser = PatchParser()
    parser.feed("*** Begin Patch\n*** Update File: f\n")
    assert (parser.state, parser.num_open_chars) == (State.UPDATING, 0)
    parser.feed("@@\n")
    assert parser.num_open_chars == 0
    parser.feed("-12\n+345\n@@")
    assert parser.num_open_chars == 9
    parser.feed("\n")
    assert parser.num_open_chars == 0
    parser.feed("-1\n*** Add File: g\n+1\n")
    assert (parser.state, parser.num_open_chars) == (State.ADDING, 3)
    parser.feed("*** End Patch\n")
    assert parser.is_ended
