"""What a path holds."""

import os
from pathlib import Path

import pytest

from tightloop.sandbox.entries import Change, Entry, TooLarge, compare, read_below, read_entry


def test_entries_are_files_and_links_only(tmp_path: Path) -> None:
    """Everything else is nothing."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "tool").write_bytes(b"x")
    (tmp_path / "tool").chmod(0o755)
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo")
    names = ("file", "tool", "link", "dir", "fifo", "gone", "file/below")
    assert [read_entry(tmp_path / name) for name in names] == [
        Entry(b"x"),
        Entry(b"x", is_executable=True),
        Entry(b"file", is_link=True),
        None,
        None,
        None,
        None,
    ]


def test_what_lies_behind_a_link_is_not_of_the_tree(tmp_path: Path) -> None:
    """A path of the tree is never read elsewhere; a missing tree is an error."""
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    for place in (tree / "real" / "deep", elsewhere / "deep"):
        place.mkdir(parents=True)
        (place / "file").write_bytes(b"x")
    for name, target in (("out", elsewhere), ("in", "real"), ("real/around", "..")):
        (tree / name).symlink_to(target)
    names = ("real/deep/file", "out", "out/deep/file", "in/deep/file", "real/around/out", "no/file")
    assert [read_below(tree, name) for name in names] == [
        Entry(b"x"),
        Entry(os.fsencode(elsewhere), is_link=True),
        None,
        None,
        None,
        None,
    ]
    before = len(os.listdir("/proc/self/fd"))
    for name in names:
        read_below(tree, name)
    assert before == len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        read_below(tmp_path / "gone", "file")


def test_caches_count_only_where_they_were_before(tmp_path: Path) -> None:
    """A project that keeps one on purpose sees its changes."""
    before, after = tmp_path / "before", tmp_path / "after"
    for place, text in ((before, "1"), (after, "2")):
        (place / "__pycache__").mkdir(parents=True)
        (place / "__pycache__" / "kept").write_text(text)
    (after / "__pycache__" / "new").write_text("x")
    changes = compare(before, after, {"__pycache__/kept", "__pycache__/new", ".git/config"})
    assert changes == [Change("__pycache__/kept", Entry(b"1"), Entry(b"2"))]


def test_a_result_has_a_limit(tmp_path: Path) -> None:
    """Files that take no room on the disk would take it in memory; what is as before is not counted."""
    before, after = tmp_path / "before", tmp_path / "after"
    for place in (before, after):
        place.mkdir()
        (place / "same").write_bytes(bytes(90))
    (after / "a").write_bytes(bytes(60))
    (after / "b").write_bytes(bytes(60))
    candidates = {"same", "a", "b"}
    assert [change.path for change in compare(before, after, candidates, max_bytes=200)] == [
        "a",
        "b",
    ]
    with pytest.raises(TooLarge, match="more than 100 bytes were changed, not all of 'b'"):
        compare(before, after, candidates - {"same"}, max_bytes=100)
