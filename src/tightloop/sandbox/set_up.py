"""What a repository needs before anybody can work in it, as the repository itself says it.

::

    # .tightloop.toml
    [setup]
    commands = ["python -m venv .venv", ".venv/bin/pip install -r requirements.txt"]
    secrets = ["INDEX_TOKEN"]            # variables of yours that the commands may see
    lock_files = ["requirements*.txt"]   # default: the usual ones
    keep_hours = 12
    timeout_s = 1800

The commands run once, with network. That is a repository's word and not the user's: nothing runs
before the user asks for it, and a secret is handed over only when the user names it too.
"""

import hashlib
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tightloop.sandbox.bases import TreeState
from tightloop.sandbox.entries import read_entry
from tightloop.sandbox.interface import SandboxError

CONFIG_NAME = ".tightloop.toml"
DEFAULT_KEEP_HOURS = 12.0
LOCK_FILES = (
    *("requirements*.txt", "pyproject.toml", "setup.cfg", "setup.py", "uv.lock", "poetry.lock"),
    *("pdm.lock", "Pipfile.lock", "pylock*.toml", "package.json", "package-lock.json"),
    *("yarn.lock", "pnpm-lock.yaml", "bun.lock", "Cargo.lock", "go.sum", "Gemfile.lock"),
    *("composer.lock", "mix.lock", "gradle.lockfile", ".python-version", ".nvmrc"),
)
"""Files whose change makes an environment stale, unless the set-up names its own."""


class SetUpFailed(SandboxError):
    """A command of the set-up did not succeed, or left a secret behind."""


class SetUp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table ``[setup]``. ``lock_files`` are patterns, relative to the repository."""

    commands: tuple[str, ...]
    secrets: tuple[str, ...] = ()
    lock_files: tuple[str, ...] = LOCK_FILES
    keep_hours: float = DEFAULT_KEEP_HOURS
    timeout_s: float = 1800.0

    def __post_init__(self) -> None:
        if not self.commands or not all(command.strip() for command in self.commands):
            raise ValueError(f"commands must name at least one, none empty, got {self.commands!r}")
        for name, value in (("keep_hours", self.keep_hours), ("timeout_s", self.timeout_s)):
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        for pattern in self.lock_files:
            if pattern.startswith("/") or ".." in pattern.split("/"):
                raise ValueError(f"lock_files must stay in the repository, got {pattern!r}")

    @property
    def text(self) -> str:
        """What the commands are, for a person and for the key."""
        return "\n".join(self.commands)


def read_set_up(repository: Path) -> SetUp | None:
    """The repository's own set-up; None if it has none.

    Raises SandboxError for a file that cannot be understood, with what is wrong in it.
    """
    path = repository / CONFIG_NAME
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("setup")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SandboxError(f"{str(path)!r} cannot be read: {error}") from error
    if table is None:
        return None
    try:
        return msgspec.convert(table, SetUp)
    except msgspec.ValidationError as error:
        known = ", ".join(SetUp.__struct_fields__)
        raise SandboxError(f"{str(path)!r}, [setup]: {error}; known keys: {known}") from error


def environment_key(set_up: SetUp, state: TreeState) -> str:
    """Equal only for the same commit, the same commands and the same lock files.

    Lock files count as they are in the tree, so an uncommitted change of one counts too.
    """
    digest = hashlib.sha256()
    parts = [os.fsencode(state.repository), (state.commit or "").encode(), set_up.text.encode()]
    for path in _lock_files(state.repository, set_up.lock_files):
        entry = read_entry(state.repository / path)
        parts += [os.fsencode(path), entry.content if entry is not None else b""]
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _lock_files(repository: Path, patterns: Sequence[str]) -> list[str]:
    found = {
        path.relative_to(repository).as_posix()
        for pattern in patterns
        for path in repository.glob(pattern)
    }
    return sorted(found)


def granted(set_up: SetUp, allowed: Sequence[str], source: dict[str, str]) -> dict[str, str]:
    """The values of the secrets that the set-up asks for.

    Raises SandboxError for one that the user has not named, or that is not in ``source``.
    """
    missing = [name for name in set_up.secrets if name not in allowed]
    if missing:
        options = " ".join(f"--secret {name}" for name in missing)
        raise SandboxError(
            f"the set-up asks for {', '.join(missing)}, and its commands have network: read "
            f"them, then allow it with {options}"
        )
    names = dict.fromkeys((*set_up.secrets, *allowed))
    unset = [name for name in names if name not in source]
    if unset:
        raise SandboxError(f"secret {unset[0]!r} is not in your environment: export it first")
    return {name: source[name] for name in names}
