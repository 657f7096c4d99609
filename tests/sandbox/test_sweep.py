"""What has changed between two looks at a tree."""

import os
from pathlib import Path

from tightloop.sandbox.sweep import Sweep, file_time_ns, sweep


def test_new_changed_and_missing_files_are_told(tmp_path: Path) -> None:
    """A write that keeps size and time shows in the inode's change time; caches never show."""
    tree = tmp_path / "tree"
    (tree / "__pycache__").mkdir(parents=True)
    for name in ("same", "written", "gone"):
        (tree / name).write_text("1")
    before = sweep(tree)
    written = tree / "written"
    times = written.stat()
    moment_ns = file_time_ns()
    written.unlink()
    written.write_text("2")
    os.utime(written, ns=(times.st_atime_ns, times.st_mtime_ns))
    (tree / "gone").unlink()
    (tree / "new").write_text("1")
    (tree / "__pycache__" / "x.pyc").write_text("1")
    after = sweep(tree)
    assert {str(tree / name) for name in ("written", "gone", "new")} == after.changed_since(before)
    young = after.changed_after(moment_ns) | after.changed_at(moment_ns)
    assert {str(tree / name) for name in ("written", "new")} <= young
    assert frozenset() == after.changed_since(after)


def test_a_file_time_is_not_after_what_follows(tmp_path: Path) -> None:
    """Each file that is made after asking counts as younger, however coarse the clock is."""
    for number in range(50):
        moment_ns = file_time_ns()
        (tmp_path / str(number)).touch()
        seen = sweep(tmp_path)
        young = seen.changed_after(moment_ns) | seen.changed_at(moment_ns)
        assert str(tmp_path / str(number)) in young
    old = Sweep({"a": (5, 6, 1, 1), "b": (5, 5, 1, 1), "c": (5, 4, 1, 1), "d/": (1, 2)})
    assert [*old.changed_after(5), *old.changed_at(5)] == ["a", "b"]
