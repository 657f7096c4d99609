"""Patches must mean to git what they mean to us."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sandbox.conftest import git
from tightloop.sandbox.entries import Change, Entry, read_entry
from tightloop.sandbox.patch_text import quoted, unified_diff

LINES = st.lists(st.sampled_from(["a", "b", "c", "", "é", "+", "-x", "\\", " \r"]), max_size=30)
CONTENT = st.builds(
    lambda lines, end: ("\n".join(lines) + end).encode(), LINES, st.sampled_from(["", "\n"])
)
ENTRY = st.none() | st.builds(Entry, CONTENT | st.binary(max_size=80), st.booleans())


@settings(max_examples=25)
@given(ENTRY, ENTRY)
def test_git_applies_every_patch(before: Entry | None, after: Entry | None) -> None:
    """Text, binary, no line feed at the end, mode changes, new and deleted files."""
    if before == after:
        return
    with tempfile.TemporaryDirectory() as name:
        place = Path(name, "file")
        if before is not None:
            place.write_bytes(before.content)
            place.chmod(0o755 if before.is_executable else 0o644)
        patch = unified_diff([Change("file", before, after)], include_binary=True)
        # bytes: the text layer would change carriage returns
        Path(name, "patch").write_bytes(patch.encode())
        git(Path(name), "apply", "patch")
        assert read_entry(place) == after


def test_far_changes_make_two_hunks_and_near_ones_one() -> None:
    """Three lines of context, as git has them."""
    old = "".join(f"{i}\n" for i in range(30))
    far = old.replace("5\n", "five\n", 1).replace("20\n", "twenty\n")
    near = old.replace("5\n", "five\n", 1).replace("10\n", "ten\n")
    texts = [
        unified_diff([Change("f", Entry(old.encode()), Entry(new.encode()))]) for new in (far, near)
    ]
    assert [text.count("@@ -") for text in texts] == [2, 1]
    assert "@@ -3,7 +3,7 @@\n 2\n 3\n 4\n-5\n+five\n" in texts[0]


def test_huge_differences_do_not_take_forever() -> None:
    """Past a bound the block is replaced as a whole; the patch stays right."""
    old = "".join(f"a{i}\n" for i in range(6000)).encode()
    new = "".join(f"b{i}\n" for i in range(6000)).encode()
    assert unified_diff([Change("f", Entry(old), Entry(new))]).count("\n-a") == 6000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain name é", "plain name é"),
        ('q"\\', '"q\\"\\\\"'),
        ("a\nb\t", '"a\\nb\\t"'),
        (os.fsdecode(b"\xff"), '"\\377"'),
    ],
)
def test_names_are_quoted_as_git_does_it(name: str, expected: str) -> None:
    """Only where something must be escaped."""
    assert quoted(name) == expected
