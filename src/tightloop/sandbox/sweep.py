"""Which files of a tree have changed between two moments, for a tree that nobody else reports on."""

import os
from dataclasses import dataclass
from pathlib import Path

from tightloop.sandbox.warm.stamps import Status, TooManyFiles, files_below, stamp

_TICK_NS = 10_000_000  # the clock that stamps files may be this much behind (HZ = 100)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Every file as it was. Directories count through the files in them only."""

    seen: dict[str, Status]

    def younger_than(self, moment_ns: int) -> frozenset[str]:
        """Files that were changed at that file time or later."""
        return frozenset(
            path
            for path, status in self.seen.items()
            if len(status) == 4 and status[1] >= moment_ns
        )

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


def file_time_ns(scratch: Path) -> int:
    """What the kernel would stamp a file with now, less the granularity of that clock.

    ``scratch`` is a file of ours, which is touched. Comparing file times with each other avoids
    asking how far the clock behind them lags.
    """
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.utime(fd)
        return os.fstat(fd).st_ctime_ns - _TICK_NS
    finally:
        os.close(fd)
