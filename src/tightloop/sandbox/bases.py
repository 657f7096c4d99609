"""Immutable bases that workspaces are laid over, one per state of the user's tree.

A clean git tree is keyed by commit, anything else by content, so a base is made once and is
never changed afterwards: overlayfs does not define what a changing lower layer looks like.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tightloop.sandbox.entries import CACHE_DIRECTORIES, Entry, files_below, read_entry
from tightloop.sandbox.interface import SandboxError

_NUM_KEPT = 8
# The user's hooks and monitors have no business in a copy.
_GIT = ("git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false")
# One process for everything: commit, changes and new files (git-status, "Porcelain Format 2").
_STATUS = [
    *("status", "--porcelain=v2", "--branch", "-z"),
    *("--no-renames", "--untracked-files=all", "--ignore-submodules"),
]
_FIELDS_BEFORE_PATH = {b"1 ": 8, b"u ": 10, b"? ": 1}


def base_for(repository: Path, bases: Path) -> Path:
    """The base that equals the repository's tree now; made if there is none yet.

    Ignored files are not part of it in a git repository. The caller holds the state lock.
    Raises SandboxError when git fails.
    """
    state = _git_state(repository)
    commit, overrides = state or (None, _plain(repository, exclude=bases))
    base = bases / _key(repository, commit, overrides)
    if base.is_dir():
        os.utime(base.parent / (base.name + ".used"))
        return base
    bases.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix="making-", dir=bases))
    try:
        if commit:
            _clone(repository, making)
        for path, entry in overrides.items():
            _place(making / path, entry)
        making.chmod(0o755)
        making.rename(base)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    (bases / (base.name + ".used")).touch()
    return base


def forget_old(bases: Path, in_use: set[str]) -> None:
    """Only the most recently used bases and those in use are left."""
    stamps = sorted(bases.glob("*.used"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for stamp in stamps[_NUM_KEPT:]:
        if stamp.stem not in in_use:
            shutil.rmtree(bases / stamp.stem, ignore_errors=True)
            stamp.unlink()


def _key(repository: Path, commit: str | None, overrides: dict[str, Entry | None]) -> str:
    digest = hashlib.sha256()
    parts = [os.fsencode(repository), (commit or "").encode()]
    for path in sorted(overrides):
        entry = overrides[path]
        content = b"-" if entry is None else entry.git_mode.encode() + entry.content
        parts += [os.fsencode(path), content]
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def run_git(
    arguments: list[str], cwd: Path, *, accepted: tuple[int, ...] = (0,), text: bytes = b""
) -> bytes:
    """Output of a git command that reads ``text``. Raises SandboxError with git's own words."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    result = subprocess.run(
        [*_GIT, *arguments], cwd=cwd, input=text, capture_output=True, check=False, env=environment
    )
    if result.returncode not in accepted:
        said = result.stderr.decode(errors="replace").strip()
        raise SandboxError(f"git {arguments[0]} in {str(cwd)!r} failed: {said}")
    return result.stdout


def _git_state(repository: Path) -> tuple[str, dict[str, Entry | None]] | None:
    """HEAD and what differs from it, untracked files included, None for a deleted file.

    None when the directory is not the top of a git work tree with a commit.
    """
    if not (repository / ".git").exists() or shutil.which("git") is None:
        return None
    listing = run_git(_STATUS, repository).split(b"\0")
    commit = listing[0].removeprefix(b"# branch.oid ").decode()
    if commit == "(initial)":
        return None
    overrides: dict[str, Entry | None] = {}
    for line in listing:
        num_fields = _FIELDS_BEFORE_PATH.get(line[:2])
        if num_fields is not None:
            path = os.fsdecode(line.split(b" ", num_fields)[num_fields])
            if not path.endswith("/"):  # a repository inside the repository
                overrides[path] = read_entry(repository / path)
    return commit, overrides


def _plain(repository: Path, exclude: Path) -> dict[str, Entry | None]:
    found: dict[str, Entry | None] = {}
    state = exclude.parent if exclude.parent.is_relative_to(repository) else exclude
    for name in files_below(repository, ""):
        path = repository / name
        if path.is_relative_to(state) or CACHE_DIRECTORIES.intersection(name.split("/")):
            continue
        entry = read_entry(path)
        if entry is not None:
            found[name] = entry
    return found


def _clone(repository: Path, target: Path) -> None:
    """A repository of its own: objects are hard links where possible, no hooks, no remote."""
    arguments = ["clone", "-q", "--local", "--template=", str(repository), str(target)]
    run_git(arguments, target.parent)
    run_git(["remote", "remove", "origin"], target)


def _place(path: Path, entry: Entry | None) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    if entry is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if entry.is_link:
        path.symlink_to(os.fsdecode(entry.content))
        return
    path.write_bytes(entry.content)
    path.chmod(0o755 if entry.is_executable else 0o644)
