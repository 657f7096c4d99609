"""Texts of two sides go together where no line was changed on both."""

import pytest

from tightloop.sandbox.entries import Entry
from tightloop.sandbox.merging import merged

BASE = Entry(b"one\ntwo\nthree\nfour\nfive\n")


def test_changes_of_both_sides() -> None:
    ours = Entry(b"ONE\ntwo\nthree\nfour\nfive\n")
    theirs = Entry(b"one\ntwo\nthree\nfour\nFIVE", is_executable=True)
    both = Entry(b"ONE\ntwo\nthree\nfour\nFIVE", is_executable=True)
    assert both == merged(BASE, ours, theirs) == merged(BASE, theirs, ours)
    assert merged(BASE, ours, ours) == ours
    assert merged(BASE, BASE, theirs) == theirs


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Entry(b"ONE\n"), Entry(b"eins\n")),
        (None, Entry(b"one\n")),
        (Entry(b"one\n"), None),
        (Entry(b"lines", is_link=True), Entry(b"one\n")),
        (Entry(b"\0"), Entry(b"one\n")),
    ],
)
def test_what_a_person_has_to_decide(ours: Entry | None, theirs: Entry | None) -> None:
    assert merged(Entry(b"one\n"), ours, theirs) is None
    assert merged(None, ours, theirs) is None
