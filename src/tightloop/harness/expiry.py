"""Which conversations of before go: by age, by number. One that a process is at stays."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tightloop.harness import undo
from tightloop.harness.past import record_paths
from tightloop.harness.record import threads_directory
from tightloop.sandbox.locks import acquire
from tightloop.trace.clock import unix_s


@dataclass(frozen=True, slots=True)
class Limits:
    """What is kept: so many conversations at most, written to within so many seconds."""

    max_age_s: float = 60 * 86400.0
    num_kept: int = 200


def collect(state_dir: Path, limits: Limits) -> list[str]:
    """What is beyond the limits is gone; the ids. What cannot be removed stays.

    So is what killed processes left in which nothing had been said.
    """
    for path in _orphans(state_dir):
        _remove(path)
    return [path.stem for path in _beyond(state_dir, limits) if _remove(path)]


def remove(state_dir: Path, thread_id: str) -> bool:
    """This one is gone; False when a process is at it."""
    return _remove(threads_directory(state_dir) / f"{thread_id}.jsonl")


def _beyond(state_dir: Path, limits: Limits) -> Iterator[Path]:
    for number, path in enumerate(record_paths(state_dir)):
        with contextlib.suppress(FileNotFoundError):
            if number >= limits.num_kept or unix_s() - path.stat().st_mtime > limits.max_age_s:
                yield path


def _orphans(state_dir: Path) -> list[Path]:
    """Records that there are not, with something beside them."""
    directory = threads_directory(state_dir)
    if not directory.is_dir():
        return []
    records = {path.with_suffix(".jsonl") for path in directory.iterdir()}
    return [path for path in records if not path.exists()]


def _remove(path: Path) -> bool:
    lock = path.with_suffix(".lock")
    with contextlib.suppress(OSError):
        fd = acquire(lock, wait=False)
        if fd is None:
            return False
        try:
            undo.remove(path.parent.parent, path.stem)
            for suffix in (".changes", ".new", ".jsonl"):
                path.with_suffix(suffix).unlink(missing_ok=True)
        finally:
            lock.unlink(missing_ok=True)
            os.close(fd)
        return True
    return False
