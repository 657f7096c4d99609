"""All or none: whatever fails, and whenever, the tree is as it was."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.patch.scenarios import Tree, harvest, plant
from tightloop.agent.patch.commit import (
    ChangedMeanwhileError,
    PlannedFile,
    _Transaction,
    commit,
)
from tightloop.agent.patch.failure import PatchError
from tightloop.agent.patch.parser import PatchParser
from tightloop.agent.patch.paths import FileState, Root
from tightloop.agent.patch.plan import PatchPolicy, Planner


def _planned(root: Root, text: str) -> Planner:
    planner, parser = Planner(root, PatchPolicy()), PatchParser()
    for event in [*parser.feed(text), *parser.finish()]:
        planner.take(event)
    return planner


class RefusingRoot(Root):
    """A root in which the directory of one file cannot be opened any more once told so."""

    def __init__(self, path: Path, doomed: str) -> None:
        super().__init__(path)
        self.doomed = doomed

    def open_parent(self, path: str, created: list[str] | None = None) -> int:
        if path == self.doomed and created is not None:
            raise OSError(28, "No space left on device")
        return super().open_parent(path, created)


THREE = (
    "*** Begin Patch\n*** Update File: a\n@@\n-1\n+one\n*** Add File: n/new\n+x\n"
    "*** Delete File: b\n*** Update File: d/c\n@@\n-3\n+three\n*** End Patch\n"
)


def test_failure_while_staging_leaves_the_tree(tmp_path: Path) -> None:
    """114a: the disk is full at the last of four files; created directories go too."""
    tree: dict[str, bytes | str] = {"a": b"1\n", "b": b"2\n", "d/c": b"3\n"}
    plant(tmp_path, tree)
    root = RefusingRoot(tmp_path, "d/c")
    planner = _planned(root, THREE)
    with pytest.raises(PatchError, match="No space left"):
        commit(root, list(planner.files.values()), 1000)
    root.close()
    assert tree == harvest(tmp_path)


def test_failure_at_the_last_rename_rolls_back(tmp_path: Path) -> None:
    """114b: three of four changes are in place when the last target turns into a directory."""
    tree: dict[str, bytes | str] = {"a": b"1\n", "b": b"2\n", "z": b"9\n"}
    plant(tmp_path, tree)
    root = Root(tmp_path)
    planner = _planned(
        root,
        "*** Begin Patch\n*** Update File: a\n@@\n-1\n+one\n*** Delete File: b\n"
        "*** Add File: n/new\n+x\n*** End Patch\n",
    )
    files = list(planner.files.values())
    files[-1].path = "n/new"

    class Late(Root):
        """Puts a directory in the way of the last rename after everything was checked."""

        def read(self, path: str, max_bytes: int) -> FileState | None:
            state = super().read(path, max_bytes)
            if path == "n/new":
                (tmp_path / "n/new/inside").mkdir(parents=True)
            return state

    late = Late(tmp_path)
    with pytest.raises(ChangedMeanwhileError):
        commit(late, files, 1000)
    root.close()
    late.close()
    assert {**tree, "n/new/inside/": b""} == harvest(tmp_path)


def test_originals_are_compared_at_commit(tmp_path: Path) -> None:
    plant(tmp_path, {"a": b"1\n"})
    root = Root(tmp_path)
    planner = _planned(root, "*** Begin Patch\n*** Delete File: a\n*** End Patch\n")
    (tmp_path / "a").write_bytes(b"2\n")
    with pytest.raises(ChangedMeanwhileError):
        commit(root, list(planner.files.values()), 1000)
    root.close()
    assert harvest(tmp_path) == {"a": b"2\n"}


@pytest.mark.parametrize(
    ("original", "content", "mode", "is_changed"),
    [
        (None, None, None, False),
        (None, b"", None, True),
        (b"a", None, None, True),
        (b"a", b"a", 0o644, False),
        (b"a", b"a", None, False),
        (b"a", b"a", 0o755, True),
        (b"a", b"b", 0o644, True),
    ],
)
def test_what_counts_as_a_change(
    original: bytes | None, content: bytes | None, mode: int | None, *, is_changed: bool
) -> None:
    state = None if original is None else FileState(original, 0o644, 0, 0, 0)
    assert is_changed == PlannedFile("f", state, content, mode).is_changed


def test_no_temporary_names_are_left(tmp_path: Path) -> None:
    plant(tmp_path, {"a": b"1\n", "b": b"2\n", "d/c": b"3\n"})
    root = Root(tmp_path)
    commit(root, list(_planned(root, THREE).files.values()), 1000)
    root.close()
    assert harvest(tmp_path) == {"a": b"one\n", "d/c": b"three\n", "n/new": b"x\n"}


def test_the_owner_is_kept(tmp_path: Path) -> None:
    """An agent that runs as root must not take the user's files away."""
    owner = (1234, 2345) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    plant(tmp_path, {"a": b"1\n"})
    os.chown(tmp_path / "a", *owner)
    root = Root(tmp_path)
    text = "*** Begin Patch\n*** Update File: a\n@@\n-1\n+one\n*** End Patch\n"
    commit(root, list(_planned(root, text).files.values()), 1000)
    root.close()
    facts = (tmp_path / "a").stat()
    assert (facts.st_uid, facts.st_gid) == owner


class MeddlingRoot(Root):
    """Lets something happen to the tree once all files are staged and the last is being compared."""

    def __init__(self, path: Path, last: str, meddle: Callable[[], None]) -> None:
        super().__init__(path)
        self.last = last
        self.meddle = meddle

    def read(self, path: str, max_bytes: int) -> FileState | None:
        state = super().read(path, max_bytes)
        if path == self.last:
            self.meddle()
        return state


UPDATES = (
    "*** Begin Patch\n*** Update File: a/f\n@@\n-1\n+one\n*** Update File: b/f\n@@\n-2\n+two\n"
    "*** Update File: c/f\n@@\n-3\n+three\n*** End Patch\n"
)
TREE: Tree = {"a/f": b"1\n", "b/f": b"2\n", "c/f": b"3\n"}


def _commit_meddled(tmp_path: Path, meddle: Callable[[], None]) -> BaseException:
    """Commit three updates, something happening just before the first rename; how it failed."""
    root = Root(tmp_path)
    files = list(_planned(root, UPDATES).files.values())
    root.close()
    meddling = MeddlingRoot(tmp_path, "c/f", meddle)
    with pytest.raises((PatchError, ChangedMeanwhileError)) as caught:
        commit(meddling, files, 1000)
    meddling.close()
    return caught.value


def test_the_second_of_three_renames_fails(tmp_path: Path) -> None:
    """114: the first is in place by then, and is taken back."""
    plant(tmp_path, TREE)

    def lose_the_second() -> None:
        (staged,) = (tmp_path / "b").glob(".tightloop-*")
        staged.unlink()

    error = _commit_meddled(tmp_path, lose_the_second)
    assert isinstance(error, PatchError)
    assert (error.failure.error, error.failure.file) == ("io_error", "b/f")
    assert error.failure.is_undone
    assert harvest(tmp_path) == TREE


@pytest.mark.parametrize("name", ["b", "c"])
def test_a_write_just_before_the_rename_is_not_lost(tmp_path: Path, name: str) -> None:
    """113: after the comparison there is still somebody else's right to the file."""
    plant(tmp_path, TREE)
    error = _commit_meddled(tmp_path, lambda: _overwrite(tmp_path / name / "f"))
    assert isinstance(error, ChangedMeanwhileError)
    assert harvest(tmp_path) == {**TREE, f"{name}/f": b"theirs\n"}


def _overwrite(file: Path) -> None:
    file.write_bytes(b"theirs\n")


def test_a_directory_in_the_place_of_a_file_comes_back(tmp_path: Path) -> None:
    plant(tmp_path, TREE)

    def swap() -> None:
        (tmp_path / "b/f").unlink()
        (tmp_path / "b/f/inside").mkdir(parents=True)

    assert isinstance(_commit_meddled(tmp_path, swap), ChangedMeanwhileError)
    assert harvest(tmp_path) == {"a/f": b"1\n", "b/f/inside/": b"", "c/f": b"3\n"}


def test_a_new_file_takes_nobody_elses_name(tmp_path: Path) -> None:
    """Somebody makes the very file after the comparison: it stays."""
    plant(tmp_path, {"a": b"1\n"})
    root = Root(tmp_path)
    text = (
        "*** Begin Patch\n*** Add File: n/new\n+x\n*** Update File: a\n@@\n-1\n+one\n"
        "*** End Patch\n"
    )
    files = list(_planned(root, text).files.values())
    root.close()
    meddling = MeddlingRoot(tmp_path, "a", lambda: _overwrite(tmp_path / "n/new"))
    with pytest.raises(ChangedMeanwhileError):
        commit(meddling, files, 1000)
    meddling.close()
    assert harvest(tmp_path) == {"a": b"1\n", "n/new": b"theirs\n"}


def test_when_the_way_back_fails_it_is_said_and_the_former_file_kept(tmp_path: Path) -> None:
    plant(tmp_path, {"a": b"1\n"})
    root = Root(tmp_path)
    (file,) = _planned(
        root, "*** Begin Patch\n*** Update File: a\n@@\n-1\n+one\n*** End Patch\n"
    ).files.values()
    transaction = _Transaction(root)
    transaction.put(file, transaction.stage(file), file.original)
    (tmp_path / "a").unlink()
    (tmp_path / "a/inside").mkdir(parents=True)
    (problem, where) = transaction.roll_back()
    transaction.close()
    root.close()
    assert "'a'" in problem
    (backup,) = tmp_path.glob(".tightloop-*")
    assert backup.read_bytes() == b"1\n"
    assert backup.name.rpartition("-")[0] in where
