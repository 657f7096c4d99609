"""Parts of the exec server that need no sandbox; the whole of it is in test_session."""

import array
import os
import resource
import socket
import subprocess
from pathlib import Path

import pytest

from tightloop.sandbox import exec_server


def test_descriptors_arrive_closed_on_exec() -> None:
    """Otherwise the output pipe of one command would be open in the next."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right, open(os.devnull) as file:
        ancillary = array.array("i", [file.fileno()])
        left.sendmsg([b"hello"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ancillary)])
        data, fds = exec_server.receive(right)
        assert (data, len(fds)) == (b"hello", 1)
        assert not os.get_inheritable(fds[0])
        os.close(fds[0])
        left.close()
        assert exec_server.receive(right) == (b"", [])


def test_programs_are_found_by_the_given_path(tmp_path: Path) -> None:
    """Not by that of this process; directories and plain files do not count."""
    (tmp_path / "a" / "tool").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "tool").write_text("")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "tool").write_text("")
    (tmp_path / "c" / "tool").chmod(0o755)
    path = ":".join(str(tmp_path / name) for name in "abc")
    assert exec_server.find_program("tool", path) == str(tmp_path / "c" / "tool")
    assert exec_server.find_program("./x/y", path) == "./x/y"
    with pytest.raises(FileNotFoundError):
        exec_server.find_program("other", path)


def test_a_marker_is_read_from_the_environment_it_was_started_with() -> None:
    """That is how an orphan is known to be of a command."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        ["cat"], stdin=pipe, stdout=pipe, env={exec_server.MARKER: "7"}
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        process.stdout.read(1)  # only now is it surely past exec
        assert exec_server.has_marker(process.pid, f"{exec_server.MARKER}=7".encode())
        assert not exec_server.has_marker(process.pid, f"{exec_server.MARKER}=77".encode())
    assert not exec_server.has_marker(process.pid, b"")


def test_ending_a_process_reaps_it() -> None:
    """And one that is gone already counts as ended."""
    process = subprocess.Popen(["sleep", "600"])
    assert exec_server.end_process(process.pid)
    assert exec_server.end_process(process.pid)
    process.returncode = -9  # it was reaped behind its back


def test_an_exit_code_that_somebody_else_has_taken_is_that_of_a_kill() -> None:
    """A warm process may die between reaping a run and saying so."""
    process = subprocess.Popen(["sh", "-c", "exit 3"])
    assert exec_server.reap(process.pid) == 3
    assert exec_server.reap(process.pid) == -9
    process.returncode = 3  # it was reaped behind its back


def test_a_tighter_limit_stays() -> None:
    """A command cannot get more than the sandbox has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    pid = os.fork()
    if pid == 0:
        exec_server.lower_limit("CORE", 10)
        exec_server.lower_limit("CORE", 20)
        os._exit(resource.getrlimit(resource.RLIMIT_CORE)[1])
    expected = 10 if hard == resource.RLIM_INFINITY else min(hard, 10)
    assert expected == exec_server.reap(pid)
    assert (soft, hard) == resource.getrlimit(resource.RLIMIT_CORE)
