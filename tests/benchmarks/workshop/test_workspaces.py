from pathlib import Path

from benchmarks.workshop.programs import spawn
from benchmarks.workshop.trees import make_tree
from benchmarks.workshop.workspaces import Operations


async def test_a_round_leaves_the_repository_as_it_was(tmp_path: Path) -> None:
    """Ours and git's way through the same steps; no worktree and no change stays."""
    repository = tmp_path / "repository"
    make_tree(repository, 200)
    operations = Operations(tmp_path, repository)
    found = await operations.round()
    assert list(found) == ["fork", "diff", "apply", "discard"]
    assert all(took > 0 for step in found.values() for took in step.values())
    assert await spawn(["git", "status", "--porcelain"], repository) == b""
    assert len((await spawn(["git", "worktree", "list"], repository)).splitlines()) == 1
