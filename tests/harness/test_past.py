"""Finding a conversation of before: by id, by its beginning, by directory; damaged ones."""

from pathlib import Path

import pytest

from tests.harness.kept import keep
from tightloop.harness.past import NoSuchThread, load


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    for name in ("last", "abc", "../abc", ""):
        with pytest.raises(NoSuchThread):
            load(tmp_path, name)


def test_the_beginning_of_an_id_will_do(tmp_path: Path) -> None:
    """If it is that of one conversation only."""
    keep(tmp_path, "abc-1")
    keep(tmp_path, "abc-2")
    keep(tmp_path, "abc")
    assert load(tmp_path, "abc-2").id == "abc-2"
    assert load(tmp_path, "abc").id == "abc"
    with pytest.raises(NoSuchThread, match="3 conversations begin with 'ab'"):
        load(tmp_path, "ab")


def test_the_last_one_is_the_last_one_about_a_directory(tmp_path: Path) -> None:
    """Or about one that it is in; another's is named, and not taken."""
    here, inside, there = tmp_path / "here", tmp_path / "here/inside", tmp_path / "there"
    inside.mkdir(parents=True)
    there.mkdir()
    state = tmp_path / "state"
    keep(state, "a", here)
    keep(state, "b", there)
    assert load(state, "last").id == "b"
    assert load(state, "last", here).id == load(state, "last", inside).id == "a"
    with pytest.raises(NoSuchThread, match="the newest of all is b, about"):
        load(state, "last", tmp_path)


@pytest.mark.parametrize("damage", [b"{", b"[]\n{}\n", b'{"kind": "items"}\n{}\n', b""])
def test_damaged_files_are_named(tmp_path: Path, damage: bytes) -> None:
    keep(tmp_path, "bad")
    (tmp_path / "threads" / "bad.jsonl").write_bytes(damage)
    with pytest.raises(NoSuchThread, match=r"bad\.jsonl cannot be read"):
        load(tmp_path, "bad")


def test_damaged_changes_are_named(tmp_path: Path) -> None:
    keep(tmp_path, "bad")
    (tmp_path / "threads" / "bad.changes").write_bytes(b"\xc1")
    with pytest.raises(NoSuchThread, match=r"bad\.jsonl cannot be read"):
        load(tmp_path, "bad")
