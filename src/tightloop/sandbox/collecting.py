"""What is kept ready for later workspaces, and which of it goes: by age, by size, by number."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tightloop.sandbox.bases import Record, lock_of, read_record, record_of, stamp_of
from tightloop.sandbox.layouts import discard_directory, in_use, read_uses, throw_away
from tightloop.sandbox.locks import acquire, is_free, locked
from tightloop.trace.clock import unix_s

_KEY_LENGTH = 64
_SHORT_KEY = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be kept. ``max_age_s`` counts from the last use; expired environments always go."""

    max_age_s: float = 14 * 86400.0
    max_bytes: int = 20 * 10**9
    num_per_repository: int = 8


@dataclass(frozen=True, slots=True)
class Holding:
    """A base or an environment. Times are seconds since 1970."""

    kind: str
    key: str
    directory: Path
    record: Record
    last_used_s: float
    is_used: bool

    @property
    def is_expired(self) -> bool:
        """Whether no new workspace will take it any more."""
        return 0 < self.record.expires_s <= unix_s()


def holdings(state_dir: Path) -> list[Holding]:
    """All bases and environments, the one used last first."""
    if not state_dir.is_dir():
        return []
    with locked(state_dir / "lock"):
        return _holdings(state_dir)


def collect(state_dir: Path, limits: Limits) -> list[Holding]:
    """What is beyond the limits is out of the way; returns it. What is in use stays.

    Also throws away what dead processes left. ``layouts.empty_trash`` deletes it all.
    """
    if not state_dir.is_dir():
        return []
    with locked(state_dir / "lock"):
        _sweep_bases(state_dir)
        _sweep_environments(state_dir)
        removed = list(_beyond(_holdings(state_dir), limits))
        for holding in removed:
            _remove(holding, state_dir)
    return removed


def _holdings(state_dir: Path) -> list[Holding]:
    used = in_use(state_dir) | _used_by_set_ups(state_dir)
    found = []
    for kind, parent in (("base", "bases"), ("environment", "environments")):
        for path in (state_dir / parent).glob("*.json"):
            record = read_record(path.with_suffix(""))
            if record is None:
                continue
            directory = path.parent / record.directory if record.directory else path.with_suffix("")
            stamp = stamp_of(directory)
            if directory.is_dir():
                last_used_s = stamp.stat().st_mtime if stamp.exists() else float(record.made_s)
                is_used = (
                    directory in used or directory / "view" / Path(record.repository).name in used
                )
                found.append(Holding(kind, path.stem, directory, record, last_used_s, is_used))
    return sorted(found, key=lambda holding: holding.last_used_s, reverse=True)


def _beyond(found: list[Holding], limits: Limits) -> Iterator[Holding]:
    """Those used last are kept as long as there is room; what is in use takes room first."""
    room = limits.max_bytes - sum(holding.record.size_bytes for holding in found if holding.is_used)
    num_kept = Counter((h.kind, h.record.repository) for h in found if h.is_used)
    for holding in found:
        if holding.is_used:
            continue
        owner = (holding.kind, holding.record.repository)
        is_old = unix_s() - holding.last_used_s > limits.max_age_s
        is_too_many = num_kept[owner] >= limits.num_per_repository
        is_lost = not Path(holding.record.repository).is_dir()
        if (
            is_old or is_too_many or is_lost or holding.is_expired
        ) or holding.record.size_bytes > room:
            yield holding
        else:
            room -= holding.record.size_bytes
            num_kept[owner] += 1


def _remove(holding: Holding, state_dir: Path) -> None:
    discard_directory(holding.directory, state_dir)
    record_of(holding.directory.with_name(holding.key)).unlink(missing_ok=True)
    stamp_of(holding.directory).unlink(missing_ok=True)


def _used_by_set_ups(state_dir: Path) -> set[Path]:
    """Bases that set-ups under way are laid over."""
    used: set[Path] = set()
    for place in _directories(state_dir / "environments"):
        if not _is_abandoned(place):
            used |= read_uses(place)
    return used


def _directories(parent: Path) -> list[Path]:
    return [place for place in parent.iterdir() if place.is_dir()] if parent.is_dir() else []


def _is_abandoned(place: Path) -> bool:
    """Whether no process makes the environment there any more."""
    locks = place.parent.glob(f"{place.name[:_SHORT_KEY]}*.lock")
    return all(is_free(lock) for lock in locks)


def _sweep_bases(state_dir: Path) -> None:
    """Half-made bases of dead processes, and records without a base."""
    bases = state_dir / "bases"
    for place in bases.glob("making-*"):
        lock = lock_of(bases / place.name.split("-")[1])
        fd = acquire(lock, wait=False)
        if fd is not None:
            discard_directory(place, state_dir)
            lock.unlink(missing_ok=True)
            os.close(fd)
    for record in bases.glob("*.json"):
        if not record.with_suffix("").is_dir() and is_free(record.with_suffix(".lock")):
            record.unlink(missing_ok=True)
            record.with_suffix(".used").unlink(missing_ok=True)


def _sweep_environments(state_dir: Path) -> None:
    """Set-ups of dead processes, and what a newer run has replaced, unless it is in use."""
    environments = state_dir / "environments"
    used = in_use(state_dir)
    records = [read_record(path.with_suffix("")) for path in environments.glob("*.json")]
    current = {record.directory for record in records if record is not None}
    for place in _directories(environments):
        is_used = any(path.is_relative_to(place) for path in used)
        if place.name not in current and not is_used and _is_abandoned(place):
            throw_away(place, state_dir)
            stamp_of(place).unlink(missing_ok=True)
