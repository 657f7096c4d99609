"""One layer less, and it still holds: what stops a command is never a single line of the set-up.

The bwrap line is the default one without its system call filter, then without more. Whoever runs it
is uid 0 of a user namespace, as an agent is that has mounted an overlay first.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.attacks.ground import PYTHON
from tightloop.sandbox import bubblewrap
from tightloop.sandbox.interface import Policy

PROBE = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def said(result):
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "ok"
target = sys.argv[1].encode()
print("remount", said(libc.mount(b"none", b"/", None, 32 | 4096, None)))
print("unmount", said(libc.umount2(b"/tmp", 2)))
print("bind", said(libc.mount(b"/usr", b"/usr", None, 4096, None)))
print("namespace", said(libc.unshare(0x10000000)))
try:
    open(target, "x").close()
    print("write ok")
except OSError as error:
    print("write", errno.errorcode[error.errno])
"""


def outcomes(place: Path, without: set[str]) -> dict[str, str]:
    """What came of every attempt inside, with the named words left out of the line."""
    workspace, outside = place / "workspace", place / "outside"
    workspace.mkdir(exist_ok=True)
    outside.mkdir(exist_ok=True)
    policy = Policy(workspace, read_only=(outside,), warm_tests=False)
    launch = bubblewrap.prepare(policy, {"PATH": os.environ["PATH"]}, 0)
    argv = list(launch.argv)
    line = argv[argv.index("bwrap") if "bwrap" in argv else _program(argv) : argv.index("--")]
    for word, num_values in (("--seccomp", 1), ("--cap-drop", 1), ("--disable-userns", 0)):
        if word in without:
            at = line.index(word)
            del line[at : at + 1 + num_values]
    for fd in launch.fds:
        os.set_inheritable(fd, True)
    try:
        done = subprocess.run(
            ["unshare", "-Urm", "--", *line, "--", PYTHON, "-I", "-S", "-c", PROBE, outside / "x"],
            capture_output=True,
            text=True,
            check=False,
            close_fds=False,
        )
    finally:
        for fd in launch.fds:
            os.close(fd)
        launch.clean_up()
    assert done.returncode == 0, done.stderr
    is_written = (outside / "x").exists()
    (outside / "x").unlink(missing_ok=True)
    found = dict(said.split() for said in done.stdout.splitlines())
    return found | {"on the host": "written" if is_written else "nothing"}


def _program(argv: list[str]) -> int:
    return next(at for at, word in enumerate(argv) if word.endswith("/bwrap"))


def test_without_any_of_them_a_command_gets_out(tmp_path: Path) -> None:
    """The control: the namespaces alone hold nobody who has capabilities in them."""
    found = outcomes(tmp_path, {"--seccomp", "--cap-drop", "--disable-userns"})
    assert found["unmount"] == "ok"
    assert found["bind"] == "ok"
    assert found["namespace"] == "ok"


@pytest.mark.parametrize(
    ("without", "mounting", "namespace"),
    [
        ({"--seccomp"}, "EPERM", "ENOSPC"),
        ({"--seccomp", "--cap-drop"}, "EPERM", "ENOSPC"),
        ({"--seccomp", "--disable-userns"}, "EPERM", "ok"),
        ({"--cap-drop", "--disable-userns"}, "EPERM", "EPERM"),
    ],
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else None,
)
def test_any_one_of_them_keeps_the_host_as_it_is(
    without: set[str], mounting: str, namespace: str, tmp_path: Path
) -> None:
    """F17, P15: no mount is changed, and nothing is written outside."""
    found = outcomes(tmp_path, without)
    expected = dict.fromkeys(("remount", "unmount", "bind"), mounting)
    expected |= {"namespace": namespace, "write": "EROFS", "on the host": "nothing"}
    assert expected == found
