"""Immutable bases that workspaces are laid over, one per state of the user's tree.

A clean git tree is keyed by commit, anything else by content, so a base is made once and is
never changed afterwards: overlayfs does not define what a changing lower layer looks like.
Beside the directory KEY lie ``KEY.json`` (what it is) and ``KEY.used`` (when it was last used).
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tightloop.sandbox.entries import CACHE_DIRECTORIES, Entry, files_below, read_below, read_entry
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.layers import size_of
from tightloop.sandbox.locks import locked
from tightloop.trace.clock import unix_s

# The user's hooks and monitors have no business in a copy.
_GIT = ("git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false")
# One process for everything: commit, changes and new files (git-status, "Porcelain Format 2").
_STATUS = [
    *("status", "--porcelain=v2", "--branch", "-z"),
    *("--no-renames", "--untracked-files=all", "--ignore-submodules"),
]
_FIELDS_BEFORE_PATH = {b"1 ": 8, b"u ": 10, b"? ": 1}


@dataclass(frozen=True, slots=True)
class TreeState:
    """What a tree holds: a commit and what differs from it, or without a commit everything.

    None in ``overrides`` stands for a deleted file. ``branch`` is a label, empty for a detached HEAD.
    """

    repository: Path
    commit: str | None
    overrides: Mapping[str, Entry | None] = field(default_factory=dict)
    branch: str = ""

    @property
    def key(self) -> str:
        """Equal for equal states only."""
        digest = hashlib.sha256()
        parts = [os.fsencode(self.repository), (self.commit or "").encode()]
        for path in sorted(self.overrides):
            entry = self.overrides[path]
            content = b"-" if entry is None else entry.git_mode.encode() + entry.content
            parts += [os.fsencode(path), content]
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()


class Record(msgspec.Struct, frozen=True):
    """What ``KEY.json`` says about a base or an environment. Times are seconds since 1970."""

    repository: str
    commit: str | None
    made_s: int
    num_changed: int = 0
    size_bytes: int = 0
    num_files: int = 0
    directory: str = ""
    expires_s: int = 0
    notes: tuple[str, ...] = ()


def tree_state(repository: Path, *, exclude: Path, commit: str | None = None) -> TreeState:
    """The repository's present state, or that of a ``commit`` (any name git knows it by).

    Ignored files are not part of it in a git repository. ``exclude`` is a state directory that
    may lie inside. Raises SandboxError when git fails.
    """
    if commit is not None:
        arguments = ["rev-parse", "--verify", "--end-of-options", commit + "^{commit}"]
        return TreeState(repository, run_git(arguments, repository).decode().strip())
    state = _git_state(repository)
    return state or TreeState(repository, None, _plain(repository, exclude))


def find_base(state: TreeState, bases: Path) -> Path | None:
    """The base that equals the state, marked as used just now; None if there is none yet."""
    base = bases / state.key
    if not base.is_dir():
        return None
    stamp_of(base).touch()
    return base


def make_base(state: TreeState, bases: Path) -> Path:
    """The base that equals the state; made unless another process did it meanwhile."""
    bases.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(lock_of(bases / state.key), keep_file=False):
        found = find_base(state, bases)
        if found is not None:
            return found
        prefix = f"making-{state.key}-"
        for left in bases.glob(prefix + "*"):  # of a process that died
            shutil.rmtree(left, ignore_errors=True)
        making = Path(tempfile.mkdtemp(prefix=prefix, dir=bases))
        try:
            _fill(making, state)
            size_bytes, num_files = size_of(making)
            record = Record(
                *(str(state.repository), state.commit, unix_s()),
                *(len(state.overrides), size_bytes, num_files),
            )
            write_record(bases / state.key, record)
            stamp_of(bases / state.key).touch()
            making.rename(bases / state.key)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
    return bases / state.key


def base_for(repository: Path, bases: Path) -> Path:
    """The base that equals the repository's tree now; made if there is none yet."""
    state = tree_state(repository, exclude=bases.parent)
    return find_base(state, bases) or make_base(state, bases)


def stamp_of(directory: Path) -> Path:
    """The file whose time says when the directory was last used."""
    return directory.with_name(directory.name + ".used")


def lock_of(directory: Path) -> Path:
    """The file that whoever makes the directory holds."""
    return directory.with_name(directory.name + ".lock")


def record_of(directory: Path) -> Path:
    """The file that says what the directory is."""
    return directory.with_name(directory.name + ".json")


def write_record(directory: Path, record: Record) -> None:
    """The record stands beside the directory, whole at any time."""
    path = record_of(directory)
    fd, half_written = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
    with open(fd, "wb") as file:
        file.write(msgspec.json.encode(record))
    os.rename(half_written, path)


def read_record(directory: Path) -> Record | None:
    """The record, or None where there is none that can be read."""
    try:
        return msgspec.json.decode(record_of(directory).read_bytes(), type=Record)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _fill(making: Path, state: TreeState) -> None:
    if state.commit:
        _clone(state.repository, making, state.commit)
    for path in state.overrides:  # first, since a file may stand where a directory was
        _take_away(making / path, making)
    for path, entry in state.overrides.items():
        if entry is not None:
            _place(making / path, entry)
    making.chmod(0o755)


def run_git(
    arguments: list[str], cwd: Path, *, accepted: tuple[int, ...] = (0,), text: bytes = b""
) -> bytes:
    """Output of a git command that reads ``text``. Raises SandboxError with git's own words."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    result = subprocess.run(
        [*_GIT, *arguments],
        cwd=cwd,
        input=text or None,
        stdin=None if text else subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env=environment,
    )
    if result.returncode not in accepted:
        said = result.stderr.decode(errors="replace").strip()
        raise SandboxError(f"git {arguments[0]} in {str(cwd)!r} failed: {said}")
    return result.stdout


@dataclass(frozen=True, slots=True)
class Head:
    """What is checked out. ``branch`` is empty for a detached HEAD."""

    commit: str | None
    branch: str


def git_head(repository: Path) -> tuple[Head, set[str]] | None:
    """What is checked out, and the paths that differ from it, untracked files included.

    None when the directory is not the top of a git work tree with a commit. The user's index is read
    and not written.
    """
    if not (repository / ".git").exists() or shutil.which("git") is None:
        return None
    listing = run_git(_STATUS, repository).split(b"\0")
    commit = listing[0].removeprefix(b"# branch.oid ").decode()
    if commit == "(initial)":
        return None
    branch = os.fsdecode(listing[1].removeprefix(b"# branch.head "))
    paths = set()
    for line in listing:
        num_fields = _FIELDS_BEFORE_PATH.get(line[:2])
        if num_fields is not None:
            path = os.fsdecode(line.split(b" ", num_fields)[num_fields])
            if not path.endswith("/"):  # a repository inside the repository
                paths.add(path)
    return Head(commit, "" if branch == "(detached)" else branch), paths


def _git_state(repository: Path) -> TreeState | None:
    """HEAD and what differs from it, untracked files included."""
    found = git_head(repository)
    if found is None:
        return None
    head, paths = found
    overrides = {path: read_below(repository, path) for path in paths}
    return TreeState(repository, head.commit, overrides, head.branch)


def _plain(repository: Path, exclude: Path) -> dict[str, Entry | None]:
    found: dict[str, Entry | None] = {}
    is_inside = exclude.is_relative_to(repository)
    for name in files_below(repository, ""):
        path = repository / name
        if is_inside and path.is_relative_to(exclude):
            continue
        if CACHE_DIRECTORIES.intersection(name.split("/")):
            continue
        entry = read_entry(path)
        if entry is not None:
            found[name] = entry
    return found


def _clone(repository: Path, target: Path, commit: str) -> None:
    """A repository of its own: objects are hard links where possible, no hooks, no remote.

    Not ``--local``, which insists on links: the state directory may be on another file system. What
    git refuses to copy by files (links among its objects), or cannot because the user's git is tidying
    up in this moment, it can still send to itself.
    """
    words = ["clone", "-q", "--template=", str(repository), str(target)]
    try:
        run_git(words, target.parent)
    except SandboxError:
        run_git([*words[:1], "--no-local", *words[1:]], target.parent)
    run_git(["remote", "remove", "origin"], target)
    if run_git(["rev-parse", "HEAD"], target).decode().strip() != commit:
        # Another commit was asked for, or the user made one in this moment.
        run_git(["checkout", "-q", "--detach", commit], target)


def _take_away(path: Path, top: Path) -> None:
    """No file is there, nor directories that held nothing else."""
    if path.is_symlink() or path.is_file():
        path.unlink()
        for parent in path.parents:
            if parent == top or os.listdir(parent):
                return
            parent.rmdir()


def _place(path: Path, entry: Entry) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if entry.is_link:
        path.symlink_to(os.fsdecode(entry.content))
        return
    path.write_bytes(entry.content)
    path.chmod(0o755 if entry.is_executable else 0o644)
