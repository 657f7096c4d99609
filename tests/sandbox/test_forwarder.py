"""The near end inside: copies both ways, and becomes the program."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tightloop.sandbox import forwarder

PYTHON = os.path.realpath(sys.executable)


def answer_all(listener: socket.socket) -> None:
    """Every connection hears its own bytes again, backwards, when it has ended."""
    while True:
        try:
            client = listener.accept()[0]
        except OSError:
            return
        with client:
            data = b""
            while piece := client.recv(65536):
                data += piece
            client.sendall(data[::-1])


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Path]:
    """Something that listens where the proxy would."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=answer_all, args=(listener,), daemon=True)
        thread.start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


CLIENT = """
import socket, sys
sent = bytes(range(256)) * 4096
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as client:
    client.sendall(sent)
    client.shutdown(socket.SHUT_WR)
    got = b"".join(iter(lambda: client.recv(65536), b""))
print(got == sent[::-1])
"""


def test_the_program_finds_the_proxy_behind_the_port(proxy: Path) -> None:
    """A megabyte each way, half-closed in between; in namespaces of its own, so that all ends."""
    line = ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev"]
    line += ["--bind", str(proxy), str(proxy), "--"]
    line += [PYTHON, "-I", "-S", "-B", forwarder.__file__, str(proxy), "3128", ""]
    done = subprocess.run(
        [*line, PYTHON, "-I", "-S", "-c", CLIENT, "3128"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.startswith("True"), done.stderr


@contextmanager
def forwarding(path: Path) -> Iterator[socket.socket]:
    """A listener whose connections go to the socket at ``path``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=forwarder.forward, args=(listener, str(path)))
        thread.start()
        try:
            yield listener
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            assert not thread.is_alive()


def test_without_a_proxy_the_client_is_hung_up_on(tmp_path: Path) -> None:
    """And the next one is served all the same."""
    with forwarding(tmp_path / "none") as listener:
        for _ in range(2):
            with socket.create_connection(listener.getsockname(), timeout=10) as client:
                assert client.recv(1) == b""


def test_both_sides_end_when_one_has_gone(tmp_path: Path) -> None:
    """A proxy that hangs up takes the client's connection along."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as far, forwarding(path) as listener:
        far.bind(str(path))
        far.listen()
        with socket.create_connection(listener.getsockname(), timeout=10) as client:
            client.sendall(b"x")
            accepted = far.accept()[0]
            assert accepted.recv(1) == b"x"
            accepted.close()
            assert client.recv(1) == b""
