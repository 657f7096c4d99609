"""Programs under measurement: started, awaited, watched by scheduler accounting, and ended.

CPU time is field 1 of ``/proc/PID/task/*/schedstat``, nanoseconds on a CPU, summed over all threads of
the process and its descendants: far steadier than wall time on a machine that does other things too.
"""

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tightloop.trace.clock import now_ns

END_LIMIT_S = 10.0
LAST_WORDS = 400
_PATHS = re.compile(r"(?<![\w:/])(?:/[\w.@+-]+){2,}")


class NotStarted(Exception):
    """A program did not come up; the text holds its last words."""


def pause(seconds: float) -> None:
    """Let others run. For programs that measure; tests never wait like this."""
    select.select((), (), (), seconds)


def free_port() -> int:
    """A TCP port of this machine that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def family(pid: int) -> list[int]:
    """The process and its descendants. Empty when it has ended."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        try:
            tasks = list(Path(f"/proc/{each}/task").iterdir())
        except OSError:
            continue
        found.append(each)
        for task in tasks:
            with contextlib.suppress(OSError):
                waiting += map(int, (task / "children").read_text().split())
    return found


def cpu_ns(pids: Sequence[int]) -> int:
    """CPU time of all their threads so far. Threads that have ended are not in it."""
    total = 0
    for pid in pids:
        folder = f"/proc/{pid}/task"
        with contextlib.suppress(OSError):
            for task in os.listdir(folder):
                with contextlib.suppress(OSError), open(f"{folder}/{task}/schedstat", "rb") as file:
                    total += int(file.read().split(None, 1)[0])
    return total


def rss_bytes(pids: Sequence[int]) -> int:
    """Resident memory of the processes, shared pages counted once for each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            total += pages * os.sysconf("SC_PAGE_SIZE")
    return total


def use_cores(pids: Sequence[int], cores: Iterable[int]) -> None:
    """From now on all threads of these processes run on these cores alone."""
    wanted = set(cores)
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(int(task), wanted)


@contextlib.contextmanager
def apart(servers: Sequence[int], others: Sequence[int]) -> Iterator[None]:
    """Within the block the servers have a core to themselves; this process and others share another.

    Raises ValueError where this process may use one core alone.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise ValueError(f"keeping apart needs two cores, and there is {cores}")
    here = [os.getpid(), *others]
    use_cores(servers, cores[:1])
    use_cores(here, cores[1:2])
    try:
        yield
    finally:
        use_cores([*servers, *here], cores)


class Program:
    """One running program, in a process group of its own. ``with`` ends it."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        has_commands: bool = False,
        cwd: Path | None = None,
    ) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the program
        pipe = subprocess.PIPE if has_commands else None
        self._process = subprocess.Popen(
            argv,
            stdin=pipe or subprocess.DEVNULL,
            stdout=pipe or self._log,
            stderr=self._log,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
        self.pids = [self._process.pid]

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_details: object) -> None:
        self.end()

    def find_family(self) -> None:
        """Look for descendants; call once it is up, and again when it may have made more."""
        self.pids = family(self._process.pid)

    def cpu_ns(self) -> int:
        """See ``cpu_ns``, of this program."""
        return cpu_ns(self.pids)

    def rss_bytes(self) -> int:
        """See ``rss_bytes``, of this program."""
        return rss_bytes(self.pids)

    def command(self, line: str) -> Any:
        """Write one line to it and read its answer, one line of JSON. Raises ``NotStarted``."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except OSError as error:
            raise NotStarted(self.last_words()) from error
        return self.read_line()

    def read_line(self) -> Any:
        """The next line of JSON that it prints. Raises ``NotStarted``."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise NotStarted(self.last_words())
        return json.loads(line)

    def wait_for_http(self, port: int, path: str, limit_s: float = 60.0) -> None:
        """Until it answers that path with status 200. Raises ``NotStarted``."""
        deadline_ns = now_ns() + round(limit_s * 1e9)
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        while not _is_ok(port, request):
            if self._process.poll() is not None:
                raise NotStarted(
                    f"ended with status {self._process.returncode}: {self.last_words()}"
                )
            if now_ns() > deadline_ns:
                raise NotStarted(f"no answer on {path} in {limit_s:.0f} s: {self.last_words()}")
            pause(0.05)
        self.find_family()

    def last_words(self) -> str:
        """The last line that it wrote, without paths of this machine."""
        self._log.flush()
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), LAST_WORDS, max(0, size - LAST_WORDS))
        lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
        return _PATHS.sub("PATH", lines[-1].strip()) if lines else "it said nothing"

    def end(self) -> None:
        """End it and its descendants, politely first. May be called twice."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(END_LIMIT_S)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _is_ok(port: int, request: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
            line.sendall(request)
            return b" 200 " in line.recv(64)
    except OSError:
        return False
