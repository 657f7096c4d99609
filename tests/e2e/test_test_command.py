"""``tightloop test`` as a person has it: real processes, a real terminal, and every way to die.

1. a second run is warm, from the same background process; the exit code is pytest's
2. two at once share one background process
3. a killed background process: the next run starts another
4. killed in the middle of a run: the run is made again, cold, and says so
5. Ctrl-C interrupts the run, not the background process
6. a command line that is killed takes its run along
7. in a terminal: colours and width as pytest would choose; in a pipe, none
8. another interpreter than when it was started: another process, and one line about it
"""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.testing.projects import LIMIT_S, Project, ended

WAITING = (
    "import os, pathlib\n\n\ndef test_one():\n"
    "    place = pathlib.Path('been')\n"
    "    if place.exists():\n"
    "        return\n"
    "    place.touch()\n"
    "    fd = os.open('up', os.O_WRONLY)\n"
    "    os.write(fd, b'up')\n"
    "    while True:\n"
    "        os.read(fd_of_gate(), 1)\n\n\n"
    "def fd_of_gate():\n"
    "    return os.open('gate', os.O_RDONLY)\n"
)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project of one test; its background processes end with the test."""
    one = Project(tmp_path)
    yield one
    one.test("--stop")


@pytest.fixture
def waiting(project: Project) -> Project:
    """Its test waits for ever the first time it is run; ``begun`` waits until it does."""
    project.write("test_core.py", WAITING)
    for name in ("up", "gate"):
        os.mkfifo(project.root / name)
    return project


def begun(project: Project, *words: str) -> subprocess.Popen[str]:
    """A run under way, and its test has begun to wait."""
    process = project.begin("test", "-q", *words)
    with (project.root / "up").open("rb") as up:
        assert up.read(2) == b"up"
    return process


def test_the_second_run_is_warm(project: Project) -> None:
    """Case 1."""
    first = project.test("-q")
    assert (first.code, first.output.splitlines()[-1][:8]) == (0, "1 passed")
    assert first.last.startswith("warm (l0) in "), first
    one = project.process()
    assert (one["runs"], one["isolation"], one["policy"]) == (1, "bubblewrap", "workspace-write")
    project.write("core.py", "def value():\n    return 2\n")
    second = project.test("-q")
    assert (second.code, "assert 2 == 1" in second.output) == (1, True)
    assert project.process()["pid"] == one["pid"]


def test_two_at_once_share_one_process(project: Project) -> None:
    """Case 2."""
    both = [project.begin("test", "-q") for _ in range(2)]
    assert [ended(one).code for one in both] == [0, 0]
    assert project.process()["runs"] == 2


def test_a_dead_process_is_replaced(project: Project) -> None:
    """Case 3: its socket is still there."""
    assert project.test("-q").code == 0
    before = project.process()["pid"]
    project.kill_process()
    again = project.test("-q")
    assert (again.code, len(again.said.splitlines())) == (0, 1)
    assert project.process()["pid"] != before


def test_a_run_whose_process_dies_is_made_again(waiting: Project) -> None:
    """Case 4: the verdict is that of the second run, which is cold."""
    process = begun(waiting)
    waiting.kill_process()
    ran = ended(process)
    assert (ran.code, "1 passed" in ran.output) == (0, True)
    assert "died in the middle: running it again, cold" in ran.said
    assert re.fullmatch("cold in .*: asked for", ran.last), ran


def test_control_c_interrupts_the_run_only(waiting: Project) -> None:
    """Case 5: pytest says so and ends with 2; the background process is the same after it."""
    process = begun(waiting)
    one = waiting.process()
    process.send_signal(signal.SIGINT)
    ran = ended(process)
    assert (ran.code, "KeyboardInterrupt" in ran.output) == (2, True)
    assert ran.last == "interrupted"
    assert waiting.test("-q").code == 0
    assert waiting.process()["pid"] == one["pid"]


def test_a_killed_command_line_takes_its_run_along(waiting: Project) -> None:
    """Case 6: nobody would read what it says."""
    process = begun(waiting)
    process.kill()
    ended(process)
    assert waiting.settle()["runs"] == 1
    assert waiting.test("-q").code == 0


def test_a_terminal_gets_colours_and_its_width(project: Project) -> None:
    """Case 7: byte for byte what pytest makes of a terminal of 100 columns."""
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = subprocess.Popen(
        project.argv("test"), cwd=project.root, env=project.environment,
        stdin=far, stdout=far, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(far)
    shown = b""
    while True:
        try:
            piece = os.read(near, 4096)
        except OSError:  # EIO: nobody has the terminal open any more
            break
        shown += piece
    os.close(near)
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, said
    assert b"warm (l0)" in said
    assert b"\x1b[32m" in shown
    lines = re.sub(rb"\x1b\[[0-9;]*m", b"", shown).decode().split("\r\n")
    assert {len(line) for line in lines if line.startswith("===")} == {100}
    plain = project.test()
    assert "\x1b" not in plain.output
    rulers = [line for line in plain.output.splitlines() if line.startswith("===")]
    assert {len(line) for line in rulers} == {80}


def test_another_interpreter_needs_another_process(project: Project) -> None:
    """Case 8."""
    assert project.test("-q").code == 0
    before = project.process()["pid"]
    config = project.root / ".venv" / "pyvenv.cfg"
    config.write_text(config.read_text() + "\n")
    again = project.test("-q")
    assert again.code == 0
    told = again.said.splitlines()
    assert told[0] == "tightloop: starting anew: the project's interpreter has changed"
    assert project.process()["pid"] != before
