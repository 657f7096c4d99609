"""The connection of a near end: who is there, and writing to whoever reads slowly."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tightloop.cli.testing import link


def test_a_silent_process_is_ended(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is ours, took the connection, and says nothing: the next start needs its place."""
    code = (
        "import os, socket, sys; server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "server.bind(sys.argv[1]); server.listen(); print('up', flush=True); server.accept()[0].recv(0)\n"
        "os.read(0, 1)"
    )
    path = str(tmp_path / "s")
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as silent:
        assert silent.stdout is not None
        silent.stdout.readline()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(path)
            link.end_silent(connection)
        assert silent.wait() == -signal.SIGKILL
        assert f"{silent.pid} does not answer" in capfd.readouterr().err


def test_nobody_there_is_gone(tmp_path: Path) -> None:
    """No directory, no socket, or one that nobody listens on: one has to be started."""
    state = tmp_path / "state"
    with pytest.raises(link.Gone):
        link.connect(str(state), "x")
    state.mkdir(mode=0o700)
    with pytest.raises(link.Gone):
        link.connect(str(state), "x")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(state / "x.sock"))
    with pytest.raises(link.Gone):
        link.connect(str(state), "x")


def test_all_is_written_to_a_slow_reader() -> None:
    """Also where the descriptor does not wait: a terminal may be shared with who set it so."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = os.urandom(300_000)
    heard = bytearray()

    def read() -> None:
        while piece := os.read(reading, 5000):
            heard.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    link.write(writing, data)
    os.close(writing)
    reader.join()
    os.close(reading)
    assert bytes(heard) == data


def test_words_for_nobody_are_no_error() -> None:
    """A verdict counts without them."""
    reading, writing = os.pipe()
    os.close(reading)
    link.write(writing, b"x")
    os.close(writing)
