"""Descriptors that were there before a run must be the run's own when it begins."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tightloop.sandbox.warm.standing_in import shape_of

START = """\
import os, sys, tempfile
from tightloop.sandbox.warm.recording import Refusal
from tightloop.sandbox.warm.standing_in import Descriptors, StandIn, raised, shape_of
report = raised(os.dup(int(sys.argv[1])))
output = raised(int(sys.argv[1]))
os.closerange(3, 200)
stand_in = StandIn(shape_of(output))
"""


def started(code: str, output: int) -> subprocess.CompletedProcess[str]:
    """A process with the output as one of its descriptors."""
    return subprocess.run(
        [sys.executable, "-c", START + code, str(output)],
        pass_fds=[output],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_descriptor_of_the_stand_in_becomes_the_output(tmp_path: Path) -> None:
    """Copies too, with their flags; what was said before comes once, numbers stay as they were."""
    with (tmp_path / "output").open("w+") as output:
        done = started(
            """\
copy = os.dup(1)
print("before", flush=True)
os.write(copy, b"by the copy\\n")
found, said = Descriptors.of_now(stand_in), stand_in.said()
assert (found.outputs, copy) == ([1, 2, 3], 3), found
found.hand_over(output, [output, report])
os.write(1, said)
os.write(copy, b"after\\n")
assert [os.get_inheritable(fd) for fd in (1, 2, 3)] == [True, True, False]
left = {int(fd) for fd in os.listdir("/proc/self/fd")} - {4}
assert left == {0, 1, 2, 3, output, report}, left
""",
            output.fileno(),
        )
        output.seek(0)
        assert (output.read(), done.stderr) == ("before\nby the copy\nafter\n", "")


def test_nameless_files_are_not_shared(tmp_path: Path) -> None:
    """Two runs that capture into one file would read each other's text."""
    with (tmp_path / "output").open("w+") as output:
        done = started(
            """\
captured = tempfile.TemporaryFile()
copy = os.dup(captured.fileno())
found = Descriptors.of_now(stand_in)
child = os.fork()
if not child:
    found.hand_over(output, [output])
    os.write(captured.fileno(), b"of the child")
    assert os.pread(copy, 99, 0) == b"of the child"
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert os.fstat(copy).st_size == 0 and captured.tell() == 0
""",
            output.fileno(),
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "opened", ["open('/etc/passwd')", "__import__('socket').socket()", "os.pipe()"]
)
def test_what_runs_would_share_is_refused(opened: str, tmp_path: Path) -> None:
    """A position in a file, a connection."""
    with (tmp_path / "output").open("w+") as output:
        code = f"kept = {opened}\ntry:\n    Descriptors.of_now(stand_in)\n"
        code += "except Refusal as refusal:\n    os.write(output, str(refusal).encode())\n"
        started(code, output.fileno())
        output.seek(0)
        assert "stays open" in output.read()


def test_a_terminal_is_stood_in_for_by_one_of_its_size() -> None:
    """Programs ask for colours and width before the run has its own."""
    near, far = pty.openpty()
    try:
        assert shape_of(far) == tuple(os.get_terminal_size(far))
        done = started(
            """\
assert os.isatty(1) and os.isatty(2) and sys.stdout.line_buffering
assert os.get_terminal_size(1) == os.get_terminal_size(output)
print("hello")
os.write(output, stand_in.said().upper())
""",
            far,
        )
        assert (done.stderr, done.returncode) == ("", 0)
        assert os.read(near, 99).replace(b"\r", b"") == b"HELLO\n"
    finally:
        os.close(near)
        os.close(far)
