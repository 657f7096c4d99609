"""W6: a resident interpreter outside of a sandbox refuses to start."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.conftest import OpenSandbox, plain_environment
from tests.sandbox.warm.started import MAIN
from tightloop.sandbox.warm.confinement import REFUSAL, is_confined

STATUS = "Name:\tpython\nCapEff:\t{caps}\nNoNewPrivs:\t{privs}\nSeccomp:\t{mode}\n"


@pytest.mark.parametrize(
    ("caps", "privs", "mode", "expected"),
    [("0" * 16, 1, 2, True), ("1", 1, 2, False), ("0", 0, 2, False), ("0", 1, 0, False)],
)
def test_all_of_it_is_needed(
    tmp_path: Path, caps: str, privs: int, mode: int, expected: bool
) -> None:
    (tmp_path / "status").write_text(STATUS.format(caps=caps, privs=privs, mode=mode))
    assert is_confined(str(tmp_path / "status")) is expected


def test_what_cannot_be_seen_is_no_sandbox(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tpython\n")
    assert not is_confined(str(tmp_path / "status"))
    assert not is_confined(str(tmp_path / "missing"))


def start_outside(workspace: Path, *words: str) -> dict[str, Any]:
    """The first that a resident interpreter says here, where no sandbox is; it has ended."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    argv = [sys.executable, str(MAIN), *words, str(workspace), str(theirs.fileno())]
    with ours:
        with theirs:
            process = subprocess.Popen(
                argv,
                pass_fds=[theirs.fileno()],
                stderr=subprocess.DEVNULL,
                env={"PATH": "/usr/bin"},
            )
        ours.settimeout(30.0)
        said: dict[str, Any] = json.loads(ours.recv(10_000))
    process.wait(30.0)
    return said


def test_outside_it_refuses(tmp_path: Path) -> None:
    """And says why to whoever started it."""
    assert start_outside(tmp_path) == {"state": "refused", "reason": REFUSAL}


@pytest.mark.parametrize("kind", ["bubblewrap", "landlock", "none"])
async def test_inside_it_starts_and_where_nothing_is_confined(
    kind: str, opened: OpenSandbox, workspace: Path
) -> None:
    """Without isolation because the user said so: then commands are not confined either."""
    plain_environment(workspace)
    sandbox = await opened(kind, warm_tests=True)
    assert await sandbox.warm_tests_ready(), sandbox.warm_refusal
