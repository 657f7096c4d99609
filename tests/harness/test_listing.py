"""The list of conversations: what each line says, and that one damaged file hides no other."""

from pathlib import Path

import pytest

from tests.harness.kept import keep
from tightloop.harness.holding import held
from tightloop.harness.listing import list_past
from tightloop.harness.past import load
from tightloop.harness.record import Record
from tightloop.sandbox.entries import Change, Entry


def test_there_may_be_none(tmp_path: Path) -> None:
    assert list_past(tmp_path) == []


def test_a_line_says_what_the_whole_would(tmp_path: Path) -> None:
    """What is read quickly is the same as what going on would read."""
    keep(tmp_path, "a")
    record = Record(tmp_path, "a", str)
    record.write_changes([Change("m.py", None, Entry(b"x"))])
    with held(tmp_path, "a", "exec"):
        (one,) = list_past(tmp_path)
    past = load(tmp_path, "a")
    assert (one.id, one.title, one.num_turns) == (past.id, past.title, past.num_turns)
    assert (one.repository, one.model, one.started) == (past.repository, past.model, past.started)
    assert (one.changed, one.is_open) == (("m.py",), True)
    assert not list_past(tmp_path)[0].is_open


@pytest.mark.parametrize("damage", [b"{\n", b"[]\n", b"", b'{"kind":"items","items":[{}]}\n'])
def test_a_damaged_file_hides_no_other(tmp_path: Path, damage: bytes) -> None:
    keep(tmp_path, "bad")
    keep(tmp_path, "good")
    (tmp_path / "threads" / "bad.jsonl").write_bytes(damage)
    assert [one.id for one in list_past(tmp_path)] == ["good"]


def test_narrowed_to_a_directory_and_a_number(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("a", "b", "c"):
        keep(tmp_path, name, here)
        keep(tmp_path, f"{name}-else")
    assert [one.id for one in list_past(tmp_path, here)] == ["c", "b", "a"]
    assert [one.id for one in list_past(tmp_path, here, 2)] == ["c", "b"]
    assert len(list_past(tmp_path)) == 6
