"""Limits for everything inside together, by control groups of version 2.

Only where a group of ours, or one above it, is delegated: its directory can be written and it hands
the controllers ``memory`` and ``pids`` on. Nobody else's group is touched. Facts: kernel
Documentation/admin-guide/cgroup-v2.rst, systemd's CGROUP_DELEGATION.
"""

import contextlib
import os
import re
import secrets
import select
from dataclasses import dataclass
from pathlib import Path

from tightloop.sandbox.interface import Policy

CONTROLLERS = ("memory", "pids")
FIX = (
    "start tightloop with 'systemd-run --user --scope -p Delegate=yes tightloop ...', or give the "
    "container a writable cgroup (version 2) with memory and pids limits of its own"
)
_EMPTY_LIMIT_MS = 1000


@dataclass(frozen=True, slots=True)
class Delegation:
    """Where groups may be made; ``directory`` is None, with the ``reason``, where nowhere."""

    directory: Path | None
    reason: str = ""


def find_delegation(proc: Path = Path("/proc")) -> Delegation:
    """The nearest group at or above ours whose children we may limit. Changes nothing."""
    root = _mount_point((proc / "self/mountinfo").read_text(errors="surrogateescape"))
    if root is None:
        return Delegation(None, "no control groups of version 2 are mounted")
    own = _own_group((proc / "self/cgroup").read_text(errors="surrogateescape"))
    if own is None:
        return Delegation(None, "this process is in no control group of version 2")
    if ".." in Path(own).parts:
        return Delegation(None, f"this process's control group {own!r} is outside what is mounted")
    missing: set[str] = set()
    place = root / own.lstrip("/")
    for directory in (place, *place.parents):
        if not directory.is_relative_to(root):
            break
        lacking = set(CONTROLLERS) - _words(directory / "cgroup.subtree_control")
        if not lacking and _is_writable(directory):
            return Delegation(directory)
        missing |= lacking
    if missing:
        available = _words(root / "cgroup.controllers")
        if absent := sorted(set(CONTROLLERS) - available):
            return Delegation(None, f"version 2 does not control {', '.join(absent)} here")
    return Delegation(None, f"no group at or above {own!r} is delegated to this user")


def _mount_point(mountinfo: str) -> Path | None:
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split(" ")[0] == "cgroup2":
            place = fields.split(" ")[4]
            return Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place))
    return None


def _own_group(text: str) -> str | None:
    return next((line[3:] for line in text.splitlines() if line.startswith("0::")), None)


def _words(path: Path) -> set[str]:
    try:
        return set(path.read_text().split())
    except OSError:
        return set()


def _is_writable(directory: Path) -> bool:
    """Moving a process needs the right to write ``cgroup.procs`` of a group above both."""
    return os.access(directory, os.W_OK) and os.access(directory / "cgroup.procs", os.W_OK)


@dataclass(frozen=True, slots=True)
class Group:
    """One group with limits; ``remove`` ends everything in it."""

    directory: Path

    def entering(self, argv: list[str]) -> list[str]:
        """The command line that enters the group, then becomes ``argv``.

        It enters by itself: moved from outside, what it had started by then would stay behind.
        """
        script = 'echo 0 > "$0" && exec "$@"'
        return ["/bin/sh", "-c", script, str(self.directory / "cgroup.procs"), *argv]

    def remove(self) -> None:
        """Every process in it is killed and the group is gone. May be called twice."""
        _set(self.directory / "cgroup.kill", "1", is_needed=False)  # Linux 5.14
        _wait_until_empty(self.directory)
        with contextlib.suppress(OSError):
            self.directory.rmdir()


def _wait_until_empty(directory: Path) -> None:
    try:
        with open(directory / "cgroup.events", "rb", buffering=0) as events:
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            while b"populated 1" in events.read(4096) and poll.poll(_EMPTY_LIMIT_MS):
                events.seek(0)
    except OSError:
        return


def make_group(policy: Policy, delegation: Delegation) -> Group | None:
    """A new group with the policy's limits; None where none is delegated or the kernel refuses."""
    if delegation.directory is None:
        return None
    directory = delegation.directory / f"tightloop-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        directory.mkdir()
    except OSError:
        return None
    group = Group(directory)
    try:
        for name, value in limits(policy).items():
            _set(directory / name, value, is_needed=name in ("memory.max", "pids.max"))
    except OSError:
        group.remove()
        return None
    return group


def limits(policy: Policy) -> dict[str, str]:
    """Files of a group and what they must say."""
    return {
        "memory.max": str(policy.max_total_memory_bytes),
        # Else a group at its limit pushes its memory to the disk, and the machine crawls.
        "memory.swap.max": "0",
        "pids.max": str(policy.max_processes),
    }


def _set(path: Path, value: str, *, is_needed: bool) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError:
        if is_needed:
            raise
