"""Which checks there are: tables ``[checks.NAME]`` of the repository's file and of the user's.

::

    # .tightloop.toml, or the user's configuration
    [checks.lint]
    command = "ruff check ."
    paths = ["*.py", "pyproject.toml"]   # run when one of these was changed; default: any file
    after = "patch"                      # or "turn": the turn waits for it before it is done
    timeout_s = 60

A table of the user's replaces the repository's of the same name; ``enabled = false`` switches it off.
All of them run inside the sandbox, without network, in a copy of the workspace.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from tightloop.harness.backend import UsageError
from tightloop.sandbox.policies import config_path, read_tables
from tightloop.sandbox.set_up import CONFIG_NAME

AFTER_PATCH, AFTER_TURN = "patch", "turn"
MAX_CHECKS = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table; ``name`` is that of the table. ``paths`` are patterns as of a shell: one without a
    slash is about the last part of a path, and ``*`` matches slashes, too."""

    command: str = ""
    paths: tuple[str, ...] = ()
    after: str = AFTER_PATCH
    timeout_s: float = 60.0
    enabled: bool = True
    name: str = ""

    def is_about(self, path: str) -> bool:
        """Whether a change of the path can change what the check says."""
        last = path.rpartition("/")[2]
        return not self.paths or any(
            fnmatchcase(path if "/" in pattern else last, pattern) for pattern in self.paths
        )


def read_checks(repository: Path, config: Path | None = None) -> list[Check]:
    """The checks that are to run, those of the repository first.

    ``config`` is as for ``sandbox.policies.read_tables``. Raises UsageError or PolicyError naming what
    is wrong, and where.
    """
    place = repository / CONFIG_NAME
    found = _table(_repository_tables(place), str(place))
    found |= _table(read_tables(config), str(config or config_path()))
    checks = [check for check in found.values() if check.enabled]
    if len(checks) > MAX_CHECKS:
        raise UsageError(
            f"{place}: [checks] has {len(checks)} checks, at most {MAX_CHECKS} can run"
        )
    return checks


def _repository_tables(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def _table(tables: Mapping[str, Any], place: str) -> dict[str, Check]:
    tables = tables.get("checks", {})
    if not isinstance(tables, dict):
        raise UsageError(f"{place}: [checks] must hold tables such as [checks.lint]")
    return {
        name: _check(name, table, f"{place}: [checks.{name}]") for name, table in tables.items()
    }


def _check(name: str, table: object, place: str) -> Check:
    try:
        check = msgspec.convert(table, Check)
    except msgspec.ValidationError as error:
        known = _listed([field for field in Check.__struct_fields__ if field != "name"])
        raise UsageError(f"{place}: {error}; known keys: {known}") from error
    if not _NAME.fullmatch(name):
        raise UsageError(f"{place}: the name must be a short word, got {name!r}")
    if check.name:
        raise UsageError(f"{place}: name is not a key: the table is named")
    if check.enabled and not check.command.strip():
        raise UsageError(f"{place}: command must be a command line, got {check.command!r}")
    if check.after not in (AFTER_PATCH, AFTER_TURN):
        raise UsageError(f"{place}: after must be 'patch' or 'turn', got {check.after!r}")
    if not 0 < check.timeout_s <= 3600:
        raise UsageError(
            f"{place}: timeout_s must be above 0 and at most 3600, got {check.timeout_s}"
        )
    return msgspec.structs.replace(check, name=name)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
