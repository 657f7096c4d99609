"""The near end: what it imports, and what it makes of a far end that behaves or not."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tightloop.cli.testing.asked import ask
from tightloop.cli.testing.near import CANNOT_RUN, Near, main

Answer = Callable[[socket.socket], None]


class Served:
    """A far end in a thread: each connection gets the next answer, then the socket is closed."""

    def __init__(self, place: Path) -> None:
        self.state = place / "state"
        self.state.mkdir(mode=0o700)
        (place / "pytest.ini").touch()
        self.request = ask("test", ["-q"], dict(os.environ), str(place.resolve()))
        self.heard: list[bytes] = []
        self._threads: list[threading.Thread] = []

    def listen(self, *answers: Answer) -> None:
        """Serve so many connections."""
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        place = os.open(self.state, os.O_PATH | os.O_DIRECTORY)
        server.bind(f"/proc/self/fd/{place}/{self.request.name}.sock")
        os.close(place)
        server.listen()

        def serve() -> None:
            with server:
                for answer in answers:
                    connection, _ = server.accept()
                    with connection:
                        self.heard.append(connection.recv(1 << 17))
                        answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        self._threads.append(thread)

    def run(self) -> int:
        """One command line."""
        return Near(self.request, str(self.state)).run()

    def close(self) -> None:
        """Every answer has been given."""
        for thread in self._threads:
            thread.join()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """See there."""
    one = Served(tmp_path)
    yield one
    one.close()


def saying(*messages: bytes) -> Answer:
    """An answer of these messages."""

    def answer(connection: socket.socket) -> None:
        for message in messages:
            connection.send(message)

    return answer


def test_the_near_end_imports_next_to_nothing() -> None:
    """Only what an interpreter has not imported anyway counts: ours, and two modules in C."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "import tightloop.cli.main, tightloop.cli.testing.near\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = {
        *("tightloop", "tightloop.cli", "tightloop.cli.main", "tightloop.cli.testing"),
        *(f"tightloop.cli.testing.{name}" for name in ("asked", "link", "near")),
    }
    assert set(done.stdout.split()) - ours <= {"_socket", "_signal"}


def test_output_and_exit_code_come_through(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    """Byte for byte, to the stream they are for; the last line comes last."""
    served.listen(saying(b"a", b"o\x1b[32m.", b"eoops\n", b"o\xff\n", b"x5\0tightloop: over\n"))
    assert served.run() == 5
    assert served.heard == [served.request.encode()]
    out, err = capfd.readouterr()
    assert out == "\x1b[32m.\udcff\n".encode(errors="surrogateescape").decode(errors="replace")
    assert err == "oops\ntightloop: over\n"


def test_a_process_that_dies_in_the_middle_is_no_verdict(
    served: Served, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had begun is run again by another one, cold; what had not begun, as it was asked for."""
    answers = [saying(b"a", b"o.."), saying(b"a", b"x0\0")]
    served.listen(*answers)
    assert served.run() == 0
    assert capfd.readouterr().err == (
        "tightloop: the background process died in the middle: running it again, cold\n"
    )
    first, second = served.heard
    assert second == first.replace(b"\0run\0\0", b"\0run\0cold\0")


def test_who_is_sent_away_asks_the_next(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    """The reason is told; three times at most, then there is no verdict."""
    served.listen(*[saying(b"rstarting anew: x")] * 3)
    assert served.run() == CANNOT_RUN
    told = capfd.readouterr().err.splitlines()
    assert told[:3] == ["tightloop: starting anew: x"] * 3
    assert "ends again and again" in told[3]


def test_an_end_without_a_word_is_not_a_verdict(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    """It had not begun: the same request goes out again, and nobody is told."""
    served.listen(saying(), saying(b"a", b"x1\0"))
    assert served.run() == 1
    assert served.heard[0] == served.heard[1]
    assert capfd.readouterr().err == ""


def test_a_place_open_to_others_is_not_used(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    """Somebody else's socket there could say anything."""
    served.state.chmod(0o750)
    assert served.run() == CANNOT_RUN
    assert "must belong to you alone" in capfd.readouterr().err


def test_a_closed_output_ends_the_run_quietly(served: Served) -> None:
    """As a shell ends a program whose reader has gone: 128 and SIGPIPE's number."""
    served.listen(saying(b"a", b"ox", b"x0\0"))
    reading, writing = os.pipe()
    os.close(reading)
    kept = os.dup(1)
    try:
        os.dup2(writing, 1)
        assert served.run() == 128 + signal.SIGPIPE
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(writing)


def test_bad_words_are_told_and_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With our own exit code, which is none of pytest's."""
    monkeypatch.chdir(tmp_path)
    assert main("test", ["--state-dir", str(tmp_path / "s"), "--policy"]) == CANNOT_RUN
    assert capfd.readouterr().err == "tightloop: test: --policy needs a value\n"
    assert not (tmp_path / "s").exists()


def test_too_many_words_are_told(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    """A message has a limit; the text says what to do instead."""
    served.request.words = ["x" * 1000] * 250
    served.listen(lambda _connection: None)
    assert served.run() == CANNOT_RUN
    assert "name directories instead of files" in capfd.readouterr().err


def test_a_place_that_cannot_be_written_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A traceback's exit code 1 would say that tests have failed."""
    (tmp_path / "file").touch()
    (tmp_path / "pytest.ini").touch()
    monkeypatch.chdir(tmp_path)
    assert main("test", ["--state-dir", str(tmp_path / "file" / "below"), "-q"]) == CANNOT_RUN
    said = capfd.readouterr().err
    assert said.startswith("tightloop: no verdict: ")
    assert "--state-dir names another place" in said
    assert said.count("\n") == 1
