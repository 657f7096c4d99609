"""Old conversations go, by number and by age; one that somebody is at stays."""

import os
from pathlib import Path

from tests.harness.kept import keep
from tightloop.harness.expiry import Limits, collect, remove
from tightloop.harness.holding import held
from tightloop.harness.past import record_paths
from tightloop.harness.record import Record


def ids(state_dir: Path) -> list[str]:
    return [path.stem for path in record_paths(state_dir)]


def test_beyond_a_number_the_oldest_go_with_all_that_is_theirs(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        keep(tmp_path, name)
        Record(tmp_path, name, str).write_changes([])
    with held(tmp_path, "b", "exec"):
        assert collect(tmp_path, Limits(num_kept=1)) == ["a"]
        assert ids(tmp_path) == ["c", "b"]
    assert collect(tmp_path, Limits(num_kept=1)) == ["b"]
    assert sorted(path.name for path in (tmp_path / "threads").iterdir()) == [
        "c.changes",
        "c.jsonl",
    ]


def test_what_was_not_used_for_long_goes(tmp_path: Path) -> None:
    keep(tmp_path, "old")
    keep(tmp_path, "new")
    os.utime(tmp_path / "threads/old.jsonl", (0, 0))
    assert collect(tmp_path, Limits()) == ["old"]
    assert ids(tmp_path) == ["new"]


def test_one_is_removed_unless_it_is_open(tmp_path: Path) -> None:
    keep(tmp_path, "a")
    with held(tmp_path, "a", "exec"):
        assert not remove(tmp_path, "a")
    assert remove(tmp_path, "a")
    assert ids(tmp_path) == []


def test_there_may_be_nothing_at_all(tmp_path: Path) -> None:
    assert collect(tmp_path / "none", Limits()) == []


def test_what_killed_processes_left_beside_no_conversation_goes(tmp_path: Path) -> None:
    """They had said nothing yet; who has only just begun stays."""
    keep(tmp_path, "a")
    directory = tmp_path / "threads"
    for name in ("b.lock", "c.changes", "c.new"):
        (directory / name).write_bytes(b"")
    with held(tmp_path, "d", "exec"):
        assert collect(tmp_path, Limits()) == []
        assert sorted(path.name for path in directory.iterdir()) == ["a.jsonl", "d.lock"]
