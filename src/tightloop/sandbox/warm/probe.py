"""Learns which modules any run of pytest imports, by running two trivial tests."""

import fcntl
import glob
import json
import os
import runpy
import shutil
import signal
import sys
import tempfile
from typing import NoReturn

# Chosen by how often test suites import them; each is only a start, never a difference.
STANDARD_MODULES = """
    abc argparse asyncio base64 bisect calendar collections concurrent.futures configparser
    contextvars copy csv dataclasses datetime decimal difflib email.message enum fractions
    functools getpass glob gzip hashlib heapq hmac html http.client importlib.metadata inspect
    io itertools json logging.handlers math mimetypes multiprocessing numbers operator pathlib
    pickle platform pprint queue random re secrets shlex shutil signal socket sqlite3 ssl
    statistics string struct subprocess tempfile textwrap threading timeit tokenize typing
    unittest.mock urllib.request uuid weakref xml.etree.ElementTree zipfile zoneinfo
""".split()  # noqa: SIM905 - as a list it fills a page
_PROBE = "def test_pass(tmp_path):\n    pass\n\n\ndef test_fail():\n    assert [1] == [2]\n"
_PREFIX, _LOCK = "tightloop-probe-", "lock"


class Probe:
    """Every module that a run of two trivial tests imports, plugins' late imports included.

    Found by running them in a child that is thrown away and holds still while others run.
    """

    def __init__(self) -> None:
        self.is_started = False
        self.read_fd = -1
        self._pid = 0
        self._directory = ""
        self._lock_fd = -1
        self._said = b""

    def start(self) -> None:
        """The child runs; ``read_fd`` tells when it has something to say."""
        self.is_started = True
        remove_abandoned()
        self._directory, self._lock_fd = make_directory()
        self.read_fd, write_fd = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            run_probe(self._directory, write_fd)
        os.close(write_fd)

    def take(self) -> list[str] | None:
        """Reads what is there; the names once all of them are."""
        piece = os.read(self.read_fd, 1 << 16)
        self._said += piece
        return None if piece else [str(name) for name in json.loads(self._said or b"[]")]

    def pause(self) -> None:
        """It takes no time from a run."""
        if self._pid:
            os.kill(self._pid, signal.SIGSTOP)

    def resume(self) -> None:
        """It may go on."""
        if self._pid:
            os.kill(self._pid, signal.SIGCONT)

    def end(self) -> None:
        """Nothing of it is left."""
        os.close(self.read_fd)
        os.close(self._lock_fd)
        os.waitpid(self._pid, 0)
        self.read_fd, self._pid = -1, 0
        shutil.rmtree(self._directory, ignore_errors=True)


def make_directory() -> tuple[str, int]:
    """A new directory, and the descriptor that says that its owner lives."""
    while True:
        directory = tempfile.mkdtemp(prefix=_PREFIX)
        lock = os.path.join(directory, _LOCK)
        fd = os.open(lock, os.O_RDWR | os.O_CREAT)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.path.exists(lock):
            return directory, fd
        os.close(fd)  # it was taken for an abandoned one


def remove_abandoned() -> None:
    """What processes left that were killed: nobody holds the lock there."""
    for lock in glob.glob(os.path.join(tempfile.gettempdir(), f"{_PREFIX}*", _LOCK)):
        try:
            fd = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue  # somebody else's, or gone meanwhile
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(os.path.dirname(lock), ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)


def run_probe(directory: str, write_fd: int) -> NoReturn:
    """In the child: run the tests, then say which modules are there."""
    try:
        os.dup2(write_fd, 3)  # the connection: it must end with its owner
        os.closerange(4, 4096)
        with open(os.path.join(directory, "test_probe.py"), "w") as file:
            file.write(_PROBE)
        os.chdir(directory)
        sys.argv = ["pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "."]
        runpy.run_module("pytest", run_name="__main__", alter_sys=True)
    except BaseException:  # noqa: BLE001 - it ends by SystemExit; all else shows as no names
        names = [
            name
            for name, module in sys.modules.items()
            if name != "__main__" and directory not in str(getattr(module, "__file__", ""))
        ]
        with open(3, "w") as file:
            json.dump(names, file)
    finally:
        os._exit(0)
