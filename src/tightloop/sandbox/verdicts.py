"""Warm verdicts are provisional: when to check one against a cold run, and what a mismatch does.

A task ends with a cold run of what it reports as passed. During a task a sample of warm runs is
checked too. One difference switches warm runs off for the repository, until its lock files change.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LOCK_FILES = (
    *("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pylock.toml"),
    *("requirements.txt", "requirements-dev.txt", "pyproject.toml", "setup.py", "setup.cfg"),
)
_KNOWN = frozenset(("passed", "failed", "error", "skipped", "xfailed", "xpassed"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a test run ended: its exit code, and outcomes by test id."""

    exit_code: int
    tests: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """One test, or the ``exit code``, that the two runs tell differently; "absent" if only one has it."""

    what: str
    warm: str
    cold: str

    def __str__(self) -> str:
        return f"{self.what}: {self.warm} warm, {self.cold} cold"


def read_report(report: bytes) -> dict[str, str]:
    """Outcomes by test id from a report's lines; lines that are something else are left out.

    The report comes from the run's own process, so nothing about it is believed.
    """
    tests: dict[str, str] = {}
    for line in report.splitlines():
        try:
            said: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and isinstance(said.get("test"), str):
            outcome = str(said.get("outcome"))
            tests[said["test"]] = outcome if outcome in _KNOWN else "unknown"
    return tests


def differences(warm: Verdict, cold: Verdict) -> tuple[Difference, ...]:
    """Everything that the two tell differently, the exit code first, then tests by id."""
    found = []
    if warm.exit_code != cold.exit_code:
        found.append(Difference("exit code", str(warm.exit_code), str(cold.exit_code)))
    for test in sorted(warm.tests.keys() | cold.tests.keys()):
        one, other = warm.tests.get(test, "absent"), cold.tests.get(test, "absent")
        if one != other:
            found.append(Difference(test, one, other))
    return tuple(found)


@dataclass(slots=True)
class AuditSample:
    """Which warm verdicts of a session are checked at once, in the background.

    The first of each command, every one that differs from the one before, and one in ``every``.
    """

    every: int = 10
    _last: dict[tuple[str, ...], Verdict] = field(default_factory=dict)
    _num_unchecked: int = 0

    def is_due(self, command: tuple[str, ...], verdict: Verdict) -> bool:
        """Whether this warm verdict is to be checked; call it once for each, in order."""
        before = self._last.get(command)
        self._last[command] = verdict
        self._num_unchecked += 1
        if before == verdict and self._num_unchecked < self.every:
            return False
        self._num_unchecked = 0
        return True

    def again(self, command: tuple[str, ...]) -> None:
        """The check of the command's last verdict came to nothing: that of its next one is due."""
        self._last.pop(command, None)


class ShutOff:
    """Remembers, in a directory of the user's state, for which repositories warm runs were wrong."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "warm-shut-off"

    def reason(self, repository: Path) -> str:
        """Why warm runs are off for the repository as it is now; empty when they are on."""
        try:
            said: Any = json.loads(self._file(repository).read_bytes())
        except FileNotFoundError:
            return ""
        except (OSError, ValueError) as error:
            return f"the note {self._file(repository)} cannot be read: {error}"
        return str(said.get("reason", "")) or "it gave a wrong verdict"

    def logs(self, repository: Path) -> tuple[str, ...]:
        """What the two runs printed that disagreed; empty when nothing is known of them."""
        try:
            said: Any = json.loads(self._file(repository).read_bytes())
            return (str(said["warm"]), str(said["cold"]))
        except (OSError, ValueError, KeyError, TypeError):
            return ()

    def turn_off(
        self, repository: Path, found: tuple[Difference, ...], warm_log: str, cold_log: str
    ) -> Path:
        """Warm runs are off from now on; returns the note with the reason and both logs."""
        path = self._file(repository)
        path.parent.mkdir(parents=True, exist_ok=True)
        note = {
            "repository": os.fspath(repository),
            "reason": "; ".join(map(str, found[:3])) or "the verdicts differ",
            "differences": [str(difference) for difference in found],
            "warm": warm_log,
            "cold": cold_log,
        }
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(note, indent=1))
        draft.replace(path)
        return path

    def turn_on(self, repository: Path) -> bool:
        """Warm runs are allowed again; False when they were anyway."""
        try:
            self._file(repository).unlink()
        except FileNotFoundError:
            return False
        return True

    def _file(self, repository: Path) -> Path:
        return self._directory / f"{repository_key(repository)}.json"


def repository_key(repository: Path) -> str:
    """Changes with the repository's place and with what its lock and project files say."""
    hashed = hashlib.blake2b(os.fsencode(os.path.realpath(repository)), digest_size=16)
    for name in _LOCK_FILES:
        try:
            content = (repository / name).read_bytes()
        except OSError:
            continue
        hashed.update(b"\0" + name.encode() + hashlib.blake2b(content).digest())
    return hashed.hexdigest()
