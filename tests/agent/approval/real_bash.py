"""Real bash as the judge: which programs does a line run, and with which words?

The search path has nothing but recording programs and what bash and its wrappers need, so a line can
do no harm, and every run of a program leaves a line.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

STAND_INS = ("danger", "safe", "other")
REAL = [
    "bash",
    "sh",
    "dash",
    "env",
    "nice",
    "nohup",
    "timeout",
    "stdbuf",
    "setsid",
    "xargs",
    "find",
    "awk",
    "sed",
    "sort",
    "python3",
    "perl",
    "echo",
    "cat",
    "true",
    "false",
    "make",
    "git",
    "rg",
    "tar",
    "printf",
    "test",
    "vim",
    "ls",
    "tail",
    "head",
    "flock",
    "script",
]
_RECORDER = """#!/bin/bash
line="${0##*/}"; for word; do line+=$'\\037'"$word"; done
printf '%s\\n' "$line" >> "$RECORD"  # at once: the parts of a pipe write side by side
"""


@dataclass(frozen=True)
class Bash:
    """A place to run lines in."""

    place: Path

    @staticmethod
    def at(place: Path) -> "Bash":
        """A fresh search path below ``place``."""
        programs = place / "bin"
        programs.mkdir()
        for name in STAND_INS:
            program = programs / name
            program.write_text(_RECORDER)
            program.chmod(0o755)
        for name in REAL:
            found = shutil.which(name)
            if found is not None:
                (programs / name).symlink_to(os.path.realpath(found))
        (place / "work").mkdir()
        return Bash(place)

    def runs(self, line: str) -> list[list[str]]:
        """Name and arguments of every stand-in that ran."""
        record = self.place / "record"
        record.unlink(missing_ok=True)
        work = self.place / "work"
        variables = {"PATH": str(self.place / "bin"), "RECORD": str(record), "LANG": "C.UTF-8"}
        subprocess.run(
            ["/bin/bash", "--noprofile", "--norc", "-c", line],
            cwd=work,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
        for left in work.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()
        if not record.exists():
            return []
        return [entry.split("\037") for entry in record.read_text().splitlines() if entry]

    def ran_danger(self, line: str) -> bool:
        """Whether ``danger`` ran."""
        return any(run[0] == "danger" for run in self.runs(line))
