"""Real processes for the end-to-end tests.

The command is taken from the environment variable ``TIGHTLOOP`` (default: the one installed beside
this interpreter), so that the same cases run against a wheel or another implementation. Cases are
numbered: 1xx smoke, 2xx official SDK (22x its Chat Completions, 24x conversations), 3xx crash and end,
4xx bad input, 5xx access and start, 6xx the demo, 7xx agents of others, 8xx measuring endpoints, 90x streamed
prefill, 91x several
backends behind one server, 92x our agent under faults, 93x warm against cold test runs, 940 the README,
95x and 96x the matrix of our agent (design/0042-agent-matrix.md).
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from tests.e2e.stock_clients import Home

END_TIMEOUT_S = 30.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is an end-to-end test."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.e2e)


def command() -> list[str]:
    """The program under test as an argument list."""
    chosen = os.environ.get("TIGHTLOOP") or str(Path(sys.executable).with_name("tightloop"))
    return shlex.split(chosen)


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [*command(), *arguments],
        capture_output=True,
        text=True,
        timeout=END_TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
        **options,
    )


@dataclass(slots=True)
class Served:
    """A running ``tightloop serve``."""

    url: str
    process: subprocess.Popen[str]

    @property
    def socket_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/responses"

    def signal(self, number: signal.Signals) -> int:
        """Send it a signal and wait for its end; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(END_TIMEOUT_S)

    def error_output(self) -> str:
        """What it wrote to standard error, after its end."""
        stream: IO[str] | None = self.process.stderr
        return stream.read() if stream is not None else ""


Serve = Callable[..., Served]


@contextmanager
def servers(state: Path) -> Iterator[Serve]:
    """Start servers on free ports, which have this state directory; all are ended behind it."""
    started: list[Served] = []

    def start(*arguments: str, env: dict[str, str] | None = None) -> Served:
        fixed = ["serve", "--port", "0", "--json-ready", "--state-dir", str(state)]
        process = subprocess.Popen(
            [*command(), *fixed, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        served = Served("", process)
        started.append(served)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.wait(END_TIMEOUT_S)
            pytest.fail(f"the server did not start: {served.error_output()}")
        served.url = json.loads(line)["url"]
        return served

    try:
        yield start
    finally:
        for served in started:
            _end(served.process)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait(END_TIMEOUT_S)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers on free ports; all are ended with the test. Their state is the test's own."""
    with servers(tmp_path) as start:
        yield start


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    """Write the answers, and replies if any, into a script file; the value for ``--model``."""

    def write(answers: list[Any], **replies: list[Any]) -> str:
        path = tmp_path / "script.json"
        path.write_text(json.dumps({"answers": answers, "replies": replies}), "utf-8")
        return f"scripted:{path}"

    return write


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Fresh folders for one agent."""
    made = Home(tmp_path / "home", tmp_path / "project", tmp_path / "tmp")
    for folder in (made.home, made.project, made.tmp):
        folder.mkdir()
    # Codex runs its commands in login shells, which forget the PATH that they were given.
    (made.home / ".profile").write_text(f'PATH="{made.path}"\n', "utf-8")
    return made


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the bundled network, for all cases of a module."""
    with servers(tmp_path_factory.mktemp("bundled")) as start:
        yield start("--model", "patchling").url
