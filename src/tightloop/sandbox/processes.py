"""The processes of a sandbox, seen from the host: what they cost, and who goes first."""

import contextlib
import os
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
NICENESS = 10


def family(pid: int) -> list[int]:
    """The process and all its descendants that live now."""
    found, waiting = [], [pid]
    while waiting:
        member = waiting.pop()
        found.append(member)
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{member}/task"):
                children = Path(f"/proc/{member}/task/{task}/children").read_text()
                waiting += [int(child) for child in children.split()]
    return found


def cpu_s(pid: int) -> float:
    """Processor time in seconds of the family so far, those that have ended and been reaped included.

    In ticks of the kernel; what has ended without being reaped within the family is not counted.
    """
    return sum(map(_ticks, family(pid))) / _TICKS_PER_S


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15]))  # utime, stime and those of reaped children, proc(5)


def give_way(pid: int) -> None:
    """The family and its later children run after others of the same machine.

    Where the kernel weighs sessions against each other, theirs weighs less, too.
    """
    _set_niceness(pid, NICENESS)


def take_turns(pid: int) -> None:
    """The family runs like others again, where that is allowed: to ordinary users it may not be."""
    _set_niceness(pid, 0)


def _set_niceness(pid: int, niceness: int) -> None:
    for member in family(pid):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, member, niceness)
        with contextlib.suppress(OSError), open(f"/proc/{member}/autogroup", "w") as file:
            file.write(str(niceness))
