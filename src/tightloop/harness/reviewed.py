"""What a review looks at: the changes of a conversation, of a checkout, of a branch or of a commit.

git is asked on the host, in the user's checkout, with hooks, monitors, external diffs and text conversions
off; its index is read and never written.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tightloop.sandbox.bases import git_head, run_git
from tightloop.sandbox.entries import Change, read_below
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.patch_text import unified_diff
from tightloop.sandbox.workspace import Workspace

SESSION, UNCOMMITTED, BRANCH, COMMIT = "session", "uncommitted", "branch", "commit"
KINDS = (SESSION, UNCOMMITTED, BRANCH, COMMIT)
_DIFF_OPTIONS = (
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--src-prefix=a/",
    "--dst-prefix=b/",
)
_MAIN_BRANCHES = ("origin/HEAD", "main", "master", "trunk")


@dataclass(frozen=True, slots=True)
class ReviewTarget:
    """``name`` is the base of a branch (empty: the main branch), or a commit."""

    kind: str = SESSION
    name: str = ""

    @staticmethod
    def parse(text: str) -> "ReviewTarget":
        """From ``session``, ``uncommitted``, ``branch[:BASE]`` or ``commit:NAME``, a space instead of
        the colon as well; nothing is the session. Raises ValueError."""
        kind, _, name = text.strip().replace(" ", ":", 1).partition(":")
        kind, name = kind or SESSION, name.strip()
        if kind not in KINDS:
            raise ValueError(f"a review is of {', '.join(KINDS)}, got {text!r}")
        if kind == COMMIT and not name:
            raise ValueError("name the commit: commit:NAME")
        if kind in (SESSION, UNCOMMITTED) and name:
            raise ValueError(f"{kind} takes no name, got {name!r}")
        return ReviewTarget(kind, name)


@dataclass(frozen=True, slots=True)
class Reviewed:
    """``title`` says in words what the ``diff`` is of."""

    title: str
    diff: str


async def changes_of(target: ReviewTarget, workspace: Workspace) -> Reviewed:
    """The diff to look at. Raises SandboxError when there is nothing, or git cannot tell."""
    if target.kind == SESSION:
        found = Reviewed("the changes of this conversation", await workspace.diff())
    else:
        found = await asyncio.to_thread(_of_git, target, workspace.repository)
    if not found.diff.strip():
        raise SandboxError(f"there is nothing to review: {found.title} are none")
    return found


def _of_git(target: ReviewTarget, repository: Path) -> Reviewed:
    head = git_head(repository)
    if head is None:
        raise SandboxError(
            f"{str(repository)!r} is no git work tree with a commit: only 'session' can be reviewed"
        )
    if target.kind == UNCOMMITTED:
        return Reviewed("the uncommitted changes", _uncommitted(repository, head[1]))
    if target.kind == COMMIT:
        commit = _commit(repository, target.name)
        words = ["show", "--format=", "--diff-merges=first-parent", *_DIFF_OPTIONS, commit]
        subject = _text(run_git(["log", "-1", "--format=%s", commit], repository)).strip()
        title = f"the changes of commit {commit[:10]} ({subject})"
        return Reviewed(title, _text(run_git(words, repository)))
    base = target.name or _main_branch(repository)
    words = ["merge-base", _commit(repository, base), "HEAD"]
    common = _text(run_git(words, repository, accepted=(0, 1))).strip()
    if not common:
        raise SandboxError(f"{base!r} and HEAD have no commit in common")
    diff = _text(run_git(["diff", *_DIFF_OPTIONS, common, "HEAD"], repository))
    branch = head[0].branch or "HEAD"
    return Reviewed(f"the changes of {branch} since it left {base} at {common[:10]}", diff)


def _uncommitted(repository: Path, dirty: set[str]) -> str:
    """Against HEAD; files that git does not know are shown as new ones."""
    diff = _text(run_git(["diff", *_DIFF_OPTIONS, "HEAD"], repository))
    listed = run_git(["ls-tree", "-r", "-z", "--name-only", "HEAD"], repository).split(b"\0")
    known = set(map(_name, listed)) | set(
        map(_name, run_git(["ls-files", "-z"], repository).split(b"\0"))
    )
    new = [Change(path, None, read_below(repository, path)) for path in sorted(dirty - known)]
    return diff + unified_diff(change for change in new if change.after is not None)


def _main_branch(repository: Path) -> str:
    for name in _MAIN_BRANCHES:
        words = ["rev-parse", "-q", "--verify", f"{name}^{{commit}}"]
        if run_git(words, repository, accepted=(0, 1, 128)).strip():
            return name
    raise SandboxError("no main branch was found: name the base, as in branch:NAME")


def _commit(repository: Path, name: str) -> str:
    words = ["rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}"]
    return _text(run_git(words, repository)).strip()


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _name(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def shortened(diff: str, max_chars: int) -> tuple[str, Sequence[str]]:
    """As many whole files of the diff as fit, and the names of the others as its headers have them."""
    kept, left_out, room = [], [], max_chars
    pieces = diff.split("\ndiff --git ")
    for number, piece in enumerate(pieces):
        text = piece if number == 0 else f"diff --git {piece}"
        if len(text) < room:
            kept.append(text)
            room -= len(text) + 1
        else:
            left_out.append(text.partition("\n")[0].removeprefix("diff --git "))
    return "\n".join(kept), left_out
