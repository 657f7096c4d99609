"""Planning reads and decides, writes nothing, and reports what it would do."""

from pathlib import Path

import pytest

from tests.agent.patch.scenarios import harvest, plant
from tightloop.agent.patch.failure import Failure, PatchError
from tightloop.agent.patch.operations import ChunkClosed, FileSeen
from tightloop.agent.patch.parser import PatchParser
from tightloop.agent.patch.paths import Root
from tightloop.agent.patch.plan import (
    ChunkLocated,
    FileResult,
    PatchPlanned,
    PatchPolicy,
    Planner,
)


def _plan(workspace: Path, body: str, policy: PatchPolicy | None = None) -> list[FileResult]:
    root = Root(workspace)
    planner, parser = Planner(root, policy or PatchPolicy()), PatchParser()
    try:
        text = f"*** Begin Patch\n{body}*** End Patch"
        for event in [*parser.feed(text), *parser.finish()]:
            planner.take(event)
    finally:
        root.close()
    return planner.results


def _refusal(workspace: Path, body: str, policy: PatchPolicy | None = None) -> Failure:
    with pytest.raises(PatchError) as caught:
        _plan(workspace, body, policy)
    return caught.value.failure


def test_results_and_nothing_written(tmp_path: Path) -> None:
    tree: dict[str, bytes | str] = {"f": b"1\n2\n3\n4\n5\n"}
    plant(tmp_path, tree)
    (result,) = _plan(
        tmp_path,
        "*** Update File: f\n*** Move to: g\n@@\n-1\n+one\n+more\n@@\n-3\n@@\n 4\n+4b\n",
    )
    assert (result.kind, result.path, result.moved_from) == ("update", "g", "f")
    assert result.changed_lines == ((1, 2), (4, 4), (5, 5))
    assert (result.num_added, result.num_removed, result.tiers) == (3, 2, ("exact",) * 3)
    assert harvest(tmp_path) == tree


def test_a_directory_to_start_from(tmp_path: Path) -> None:
    """Relative paths start there, but the whole workspace and its protection count."""
    plant(tmp_path, {"sub/f": b"1\n", ".git/config": b"1\n"})
    policy = PatchPolicy(directory="sub")
    (result,) = _plan(tmp_path, "*** Delete File: f\n", policy)
    assert result.path == "sub/f"
    assert _refusal(tmp_path, "*** Delete File: ../../f\n", policy).error == "forbidden_path"
    inside_git = PatchPolicy(directory=".git")
    assert _refusal(tmp_path, "*** Delete File: config\n", inside_git).error == "forbidden_path"


def test_overwriting_can_be_forbidden(tmp_path: Path) -> None:
    plant(tmp_path, {"f": b"1\n", "g": b"2\n"})
    policy = PatchPolicy(may_overwrite=False)
    for body in ("*** Add File: g\n+x\n", "*** Update File: f\n*** Move to: g\n"):
        assert _refusal(tmp_path, body, policy).error == "forbidden_path"


def test_both_hunks_are_named_when_a_file_is_gone_twice(tmp_path: Path) -> None:
    plant(tmp_path, {"f": b"1\n"})
    failure = _refusal(tmp_path, "*** Delete File: f\n*** Update File: f\n@@\n-1\n")
    assert (failure.error, failure.patch_line) == ("missing_file", 3)
    assert "line 2 of this patch already removes it" in failure.message


def test_names_the_system_refuses(tmp_path: Path) -> None:
    assert _refusal(tmp_path, f"*** Add File: {'x' * 300}\n+a\n").error == "io_error"


def test_a_binary_file_is_refused_at_its_first_chunk_only(tmp_path: Path) -> None:
    plant(tmp_path, {"f": b"\0\n"})
    (result,) = _plan(tmp_path, "*** Update File: f\n*** Move to: g\n")
    assert (result.moved_from, result.path, result.tiers) == ("f", "g", ())
    failure = _refusal(tmp_path, "*** Update File: f\n@@\n-a\n")
    assert (failure.error, failure.file, failure.patch_line) == ("not_text", "f", 2)


def test_events_carry_clean_paths(tmp_path: Path) -> None:
    plant(tmp_path, {"d/f": b"1\n"})
    root = Root(tmp_path)
    planner, parser = Planner(root, PatchPolicy(directory="d")), PatchParser()
    text = "*** Begin Patch\n*** Update File: ./f\n@@\n-1\n+2\n*** End Patch\n"
    known = [learnt for event in parser.feed(text) for learnt in planner.take(event)]
    root.close()
    seen, closed, located, _, _, planned = known
    assert (seen, located) == (FileSeen("update", "d/f", 2), ChunkLocated("d/f", 1, 1, "exact"))
    assert isinstance(closed, ChunkClosed)
    assert closed.path == "d/f"
    assert isinstance(planned, PatchPlanned)
    assert [file.content for file in planned.files] == [b"2\n"]
