"""What a review looks at, in a real repository."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.sandbox.conftest import commit, git
from tightloop.harness.reviewed import ReviewTarget, changes_of, shortened
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.workspace import Workspace, open_workspace


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    directory = tmp_path / "repo"
    directory.mkdir()
    (directory / "m.py").write_text("x = 1\n")
    git(directory, "init", "-q", "-b", "main")
    commit(directory)
    return directory


@pytest_asyncio.fixture
async def workspace(repo: Path, tmp_path: Path) -> AsyncIterator[Workspace]:
    opened = await open_workspace(repo, state_dir=tmp_path / "state")
    yield opened
    await opened.discard()


async def diff(target: str, workspace: Workspace) -> tuple[str, str]:
    found = await changes_of(ReviewTarget.parse(target), workspace)
    return found.title, found.diff


async def test_each_target(repo: Path, workspace: Workspace) -> None:
    """Also new files; nothing of the repository is written on the way."""
    (workspace.path / "m.py").write_text("x = 'agent'\n")
    title, text = await diff("", workspace)
    assert (title, "+x = 'agent'" in text) == ("the changes of this conversation", True)
    git(repo, "checkout", "-q", "-b", "side")
    (repo / "m.py").write_text("x = 2\n")
    commit(repo)
    (repo / "m.py").write_text("x = 3\n")
    (repo / "new.py").write_text("y = 1\n")
    (repo / "staged.py").write_text("z = 1\n")
    git(repo, "add", "staged.py")
    index = (repo / ".git" / "index").read_bytes()
    title, text = await diff("uncommitted", workspace)
    assert [line for line in text.splitlines() if line[:1] in "+-" and line[1:2] not in "+-"] == [
        *("-x = 2", "+x = 3", "+z = 1", "+y = 1"),
    ]
    title, text = await diff("branch", workspace)
    assert title.startswith("the changes of side since it left main at ")
    assert ("+x = 2" in text, "x = 3" in text) == (True, False)
    assert (await diff("branch:main", workspace))[1] == text
    title, text = await diff("commit HEAD", workspace)
    assert (title.endswith("(state)"), "+x = 2" in text) == (True, True)
    assert "+x = 1" in (await diff("commit:main", workspace))[1]  # the first one has no parent
    assert (repo / ".git" / "index").read_bytes() == index


async def test_what_cannot_be_reviewed_is_said(
    repo: Path, workspace: Workspace, tmp_path: Path
) -> None:
    for target, said in (
        ("", "nothing to review: the changes of this conversation"),
        ("uncommitted", "nothing to review"),
        ("commit:missing", "rev-parse"),
        ("commit:--output=/tmp/x", "rev-parse"),
        ("branch:missing", "rev-parse"),
    ):
        with pytest.raises(SandboxError, match=said):
            await diff(target, workspace)
    git(repo, "branch", "-m", "unusual")
    with pytest.raises(SandboxError, match="name the base"):
        await diff("branch", workspace)
    plain = tmp_path / "plain"
    plain.mkdir()
    other = await open_workspace(plain, state_dir=tmp_path / "state", kind="copy")
    try:
        with pytest.raises(SandboxError, match="only 'session' can be reviewed"):
            await diff("uncommitted", other)
    finally:
        await other.discard()


@pytest.mark.parametrize("text", ["everything", "commit", "commit:", "session:x", "uncommitted y"])
def test_a_target_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"review is of|name the commit|takes no name"):
        ReviewTarget.parse(text)


def test_a_long_diff_keeps_whole_files() -> None:
    one = "diff --git a/one b/one\n+1\n"
    two = "diff --git a/two b/two\n" + "+2\n" * 50
    three = "diff --git a/three b/three\n+3\n"
    assert shortened(one + two + three, 1000) == (one + two + three, [])
    assert shortened(one + two + three, 100) == (one + three, ["a/two b/two"])
