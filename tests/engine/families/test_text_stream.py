"""Characters stay whole; stop strings are found wherever they are cut."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.engine.families.text_stream import StopStrings, Utf8Stream, overlap


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="aé日\U0001f600\ufffd", max_size=30), st.data())
def test_no_cut_splits_a_character(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=10)))
    stream = Utf8Stream()
    pieces = [stream.feed(raw[a:b]) for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert text == "".join(pieces) + stream.finish()
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


def test_an_unfinished_character_is_replaced_at_the_end() -> None:
    stream = Utf8Stream()
    assert stream.feed("é".encode()[:1]) == ""
    assert stream.finish() == "\ufffd"


def test_bytes_that_are_never_utf8_do_not_block() -> None:
    assert Utf8Stream().feed(b"a\xffb") == "a\ufffdb"


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="abS", max_size=20), st.integers(1, 5))
def test_text_before_the_first_stop_string_comes_out(text: str, size: int) -> None:
    stops = StopStrings(("SaS", "SSb"))
    pieces = [text[n : n + size] for n in range(0, len(text), size)]
    out = "".join(map(stops.feed, pieces))
    found = [at for stop in ("SaS", "SSb") if (at := text.find(stop)) >= 0]
    assert stops.is_stopped == bool(found)
    expected = text[: min(found)] if found else text
    assert expected == out + ("" if stops.is_stopped else stops.finish())


def test_text_that_could_become_a_stop_string_is_held_back() -> None:
    stops = StopStrings(("END",))
    assert stops.feed("the EN") == "the "
    assert stops.feed("ergy") == "ENergy"


def test_the_first_stop_string_is_named() -> None:
    """The first in the text, not in the list."""
    stops = StopStrings(("never", "two", "one"))
    assert stops.stopped_by is None
    assert stops.feed("a one two") == "a "
    assert stops.stopped_by == "one"


def test_overlap_is_the_longest_proper_beginning() -> None:
    assert overlap("abab", "abac") == 2
    assert overlap("x<tool", "<tool_call>") == 5
    assert overlap("abac", "abac") == 0
