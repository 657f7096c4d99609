"""A project with tests, and ``tightloop test`` in it as a person has it: processes, nothing else."""

import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.sandbox.conftest import plain_environment
from tightloop.sandbox.sweep import file_time_ns

LIMIT_S = 50.0
FILES = {
    "pytest.ini": "[pytest]\n",
    "core.py": "def value():\n    return 1\n",
    "test_core.py": "import core\n\n\ndef test_one():\n    assert core.value() == 1\n",
}


@dataclass(frozen=True)
class Ran:
    """How a command line ended."""

    code: int
    output: str
    said: str

    @property
    def last(self) -> str:
        """The last line for a person, without the program's name."""
        return self.said.splitlines()[-1].removeprefix("tightloop: ")

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.output.splitlines()]


class Project:
    """A directory with an interpreter of its own, and a state directory beside it."""

    def __init__(self, place: Path) -> None:
        self.root = place / "project"
        self.root.mkdir()
        self.state = place / "state"
        for name, text in FILES.items():
            self.write(name, text)
        plain_environment(self.root)
        kept = ("PATH", "HOME", "LANG", "USER")
        self.environment = {name: os.environ[name] for name in kept if name in os.environ}
        self.environment |= {"TIGHTLOOP_STATE_DIR": str(self.state), "TERM": "xterm-256color"}

    def write(self, name: str, text: str) -> None:
        """The file has this content, and is older than what comes next by the clock of files."""
        (self.root / name).write_text(text)
        written_ns = (self.root / name).stat().st_ctime_ns
        while file_time_ns() <= written_ns:
            pass

    def argv(self, *words: str) -> list[str]:
        """A command line. The directory is not on the program's path, as with ``tightloop`` itself."""
        return [sys.executable, "-P", "-m", "tightloop", *words]

    def begin(self, *words: str, **settings: Any) -> subprocess.Popen[str]:
        """A command line under way."""
        settings = {"cwd": self.root, "env": self.environment, **settings}
        return subprocess.Popen(
            self.argv(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **settings,
        )

    def run(self, *words: str, **settings: Any) -> Ran:
        """A command line to its end."""
        return ended(self.begin(*words, **settings))

    def test(self, *words: str, **settings: Any) -> Ran:
        """``tightloop test``."""
        return self.run("test", *words, **settings)

    def status(self) -> dict[str, Any]:
        """What ``--status --json`` says."""
        [said] = self.test("--status", "--json").objects
        return dict(said)

    def process(self) -> dict[str, Any]:
        """The only background process."""
        [one] = self.status()["processes"]
        return dict(one)

    def settle(self) -> dict[str, Any]:
        """No check is under way any more: what the process says of itself then."""
        for _ in range(2000):
            one = self.process()
            if not one["is_busy"]:
                return one
        raise AssertionError("it is busy for ever")

    def kill_process(self) -> None:
        """As ``kill -9``, and it is gone."""
        pid = self.process()["pid"]
        pidfd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        select.select([pidfd], [], [], LIMIT_S)
        os.close(pidfd)


def ended(process: subprocess.Popen[str]) -> Ran:
    """How it ended."""
    output, said = process.communicate(timeout=LIMIT_S)
    return Ran(process.returncode, output, said)
