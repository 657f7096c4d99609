"""Which files of a tree have changed between two moments, for a tree that nobody else reports on."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tightloop.sandbox.warm.stamps import Status, TooManyFiles, files_below, stamp


@dataclass(frozen=True, slots=True)
class Sweep:
    """Every file as it was. Directories count through the files in them only."""

    seen: dict[str, Status]

    def changed_after(self, moment_ns: int) -> frozenset[str]:
        """Files that were certainly changed after that file time."""
        return frozenset(path for path, when in self._times() if when > moment_ns)

    def changed_at(self, moment_ns: int) -> frozenset[str]:
        """Files that were changed in the same tick: before it or after it."""
        return frozenset(path for path, when in self._times() if when == moment_ns)

    def _times(self) -> Iterator[tuple[str, int]]:
        for path, status in self.seen.items():
            if len(status) == 4:
                yield path, status[1]

    def changed_since(self, before: "Sweep") -> frozenset[str]:
        """Files that are other ones now, new, or gone."""
        return frozenset(
            path
            for path in self.seen.keys() | before.seen.keys()
            if self.seen.get(path) != before.seen.get(path)
        )


def sweep(root: Path) -> Sweep:
    """Tool caches and environments left out. Of a tree too large to look through, nothing."""
    try:
        paths = [path for path in files_below(os.fspath(root)) if not path.endswith(os.sep)]
    except TooManyFiles:
        paths = []
    return Sweep({path: stamp(path) for path in paths})


def file_time_ns() -> int:
    """What the kernel stamps a file with now.

    Told by a file in memory of ours. That clock ticks every few milliseconds, so comparing file
    times with each other avoids asking how far it lags behind others.
    """
    fd = os.memfd_create("moment", os.MFD_CLOEXEC)
    try:
        os.utime(fd)
        return os.fstat(fd).st_ctime_ns
    finally:
        os.close(fd)
