"""A resident interpreter as the exec server starts it, without the sandbox around it."""

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tightloop.sandbox.warm as package
from tests.sandbox.conftest import plain_environment
from tightloop.sandbox.warm.wire import MAX_MESSAGE_BYTES

MAIN = Path(next(iter(package.__path__))) / "__main__.py"
_LIMIT_S = 30.0
_MAX_RUNS = 180
"""After 200 the resident interpreter ends, to start anew with another hash seed."""


@dataclass
class Ran:
    """How a run ended; ``level`` is ``cold`` for one that was declined or never asked for."""

    level: str
    code: int
    output: str
    colder: str = ""
    tests: dict[str, str] = field(default_factory=dict)

    @property
    def said(self) -> tuple[int, str]:
        """Code and text without durations and addresses, which differ between any two runs."""
        text = re.sub(r"\d+\.\d+s", "TIME", self.output)
        text = re.sub(r"0x[0-9a-f]+", "ADDRESS", text)
        return self.code, re.sub(r"pytest-\d+/", "pytest-N/", text)


def own_packages(workspace: Path) -> None:
    """Copies instead of links: whoever installs elsewhere with hard links changes the originals."""
    for link in list(workspace.glob(".venv/lib/*/site-packages/*")):
        if link.is_symlink():
            original = link.resolve()
            link.unlink()
            copy = shutil.copytree if original.is_dir() else shutil.copy2
            copy(original, link)


class Started:
    """One resident interpreter for a workspace that has a plain pytest."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        if not (workspace / ".venv").exists():
            plain_environment(workspace)
            own_packages(workspace)
        self.python = workspace / ".venv" / "bin" / "python"
        self.environment = {
            "PATH": f"{self.python.parent}:/usr/bin:/bin",
            "HOME": os.fspath(workspace.parent),
            "TMPDIR": os.fspath(workspace.parent),
            "LANG": "C.UTF-8",
        }
        self.number = 0
        self.num_runs = 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_LIMIT_S)
        self.link = ours
        with theirs:
            self.process = subprocess.Popen(
                [self.python, MAIN, "unconfined", workspace, str(theirs.fileno())],
                env=self.environment,
                pass_fds=[theirs.fileno()],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def end(self) -> None:
        """Nothing of it is left."""
        self.link.close()
        self.process.wait(_LIMIT_S)

    def next_message(self) -> dict[str, Any]:
        """What it says next. Fails at the end of the connection."""
        data = self.link.recv(MAX_MESSAGE_BYTES)
        assert data, "the resident interpreter is gone"
        message: dict[str, Any] = json.loads(data)
        assert message["state"] != "refused", message
        return message

    def settle(self) -> None:
        """Everything that it does in the background is done."""
        self.number += 1
        self.link.sendall(json.dumps({"op": "settle", "id": self.number}).encode())
        while self.next_message()["state"] != "settled":
            pass

    def refresh(self) -> None:
        """It imports what is stale, as after a patch has closed."""
        self.link.sendall(json.dumps({"op": "refresh"}).encode())
        self.settle()

    def request(self, args: str) -> dict[str, Any]:
        """What the exec server would send for ``python -m pytest``."""
        self.number += 1
        return {
            "id": self.number,
            "args": args.split(),
            "program": os.fspath(self.python),
            "is_module": True,
            "is_script": False,
            "cwd": os.fspath(self.workspace),
            "environment": {"TIGHTLOOP_COMMAND": str(self.number)},
            "report": True,
        }

    def run(self, args: str = "-q -rA -p no:cacheprovider") -> Ran:
        """A run to its end, at whatever level."""
        self.num_runs += 1
        assert self.num_runs < _MAX_RUNS, "so many tests need another resident interpreter"
        request = self.request(args)
        reading, writing = os.pipe()
        reporting, lines = os.pipe()
        socket.send_fds(self.link, [json.dumps(request).encode()], [writing, lines])
        os.close(writing)
        os.close(lines)
        level, colder, ended = "cold", "", None
        output, report = b"", b""
        open_fds = {reading, reporting, self.link.fileno()}
        while ended is None or reading in open_fds:
            ready, _, _ = select.select(list(open_fds), [], [], _LIMIT_S)
            assert ready, f"nothing more is said: {output!r}"
            for fd in ready:
                if fd == self.link.fileno():
                    message = self.next_message()
                    if message["state"] == "started":
                        level, colder = message["level"], message.get("colder", "")
                    elif message["state"] == "declined":
                        ended, colder = 0, message["reason"]
                    elif message["state"] == "ended":
                        ended = message["code"]
                    continue
                piece = os.read(fd, 1 << 16)
                if not piece:
                    open_fds.discard(fd)
                elif fd == reading:
                    output += piece
                else:
                    report += piece
        report += os.read(reporting, 1 << 20) if reporting in open_fds else b""
        os.close(reading)
        os.close(reporting)
        tests = {line["test"]: line["outcome"] for line in map(json.loads, report.splitlines())}
        return Ran(level, ended, output.decode(), colder, tests)

    def cold(self, args: str = "-q -rA -p no:cacheprovider") -> Ran:
        """The same command in a process of its own, which trusts no cached code."""
        done = subprocess.run(
            [self.python, "-m", "pytest", *args.split()],
            cwd=self.workspace,
            env={**self.environment, "TIGHTLOOP_COMMAND": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Ran("cold", done.returncode, done.stdout)

    def resident(self, args: str = "-q -rA -p no:cacheprovider", level: str = "l2") -> Ran:
        """The first run at this level; fails when there is none."""
        self.settle()
        for _ in range(2):
            ran = self.run(args)
            if ran.level == level:
                return ran
            self.settle()
        ran = self.run(args)
        assert ran.level == level, (ran.level, ran.colder, ran.output)
        return ran

    def kill(self) -> None:
        """As the exec server does with one that does not answer."""
        self.process.send_signal(signal.SIGKILL)
