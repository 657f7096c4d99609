"""Commands that are forked: their streams, their terminal, their errors."""

import errno
import os
import socket

import pytest

from tightloop.sandbox import forked_start


def started(argv: list[str], prepare: object = None) -> tuple[int, bytes]:
    """Exit code and output of a command that reads nothing."""
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    called = prepare or (lambda: None)
    try:
        pid = forked_start.fork_and_exec(argv[0], argv, {"A": "1"}, (null, writing, False), called)  # type: ignore[arg-type]
    finally:
        os.close(writing)
        os.close(null)
    with open(reading, "rb") as output:
        said = output.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


def test_a_command_has_its_streams_variables_and_group() -> None:
    """What it prints comes through the descriptor; it leads a group of its own."""
    code, said = started(
        ["/bin/sh", "-c", 'cat; echo $A; [ $$ = "$(ps -o pgid= $$ | tr -d " ")" ]']
    )
    assert (code, said) == (0, b"1\n")


def test_what_prepares_it_runs_last_and_its_error_is_the_commands() -> None:
    """The parent gets the number of the error, and nothing is left to wait for."""

    def refuse() -> None:
        raise PermissionError(errno.EPERM, "not allowed")

    with pytest.raises(PermissionError):
        started(["/bin/true"], refuse)
    with pytest.raises(FileNotFoundError):
        started(["/no/such/program"])
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_terminal_has_its_size_and_comes_out_through_the_channel() -> None:
    """The far end stays here, the near end is what whoever asked gets."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        slave = forked_start.make_terminal([33, 44], theirs.fileno())
        _, [master], _, _ = socket.recv_fds(ours, 10, 1)
    assert os.get_terminal_size(slave) == (44, 33)
    os.write(slave, b"x")
    assert os.read(master, 10) == b"x"
    os.close(slave)
    os.close(master)
