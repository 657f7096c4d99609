"""Agents of others as real processes: where they are, what they may see, how long they may take."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60.0 * float(os.environ.get("TIGHTLOOP_TEST_TIME_SCALE", "1"))


def installed(*places: str) -> str:
    """The path of an installed client's program; the test fails when it is missing."""
    path = Path(os.environ.get("TIGHTLOOP_CLIENTS") or ROOT / ".clients").joinpath(*places)
    if not path.exists():
        pytest.fail(f"{path} is missing: run `make clients`; this is not skipped on purpose")
    return str(path)


@dataclass(frozen=True, slots=True)
class Done:
    """How a client ended and what it said."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of its standard output that are JSON objects."""
        return [orjson.loads(line) for line in self.out.splitlines() if line.startswith("{")]

    def well(self) -> "Done":
        """Itself, when it ended with status 0."""
        assert self.status == 0, f"status {self.status}\n{self.out[-3000:]}\n{self.err[-3000:]}"
        return self


@dataclass(frozen=True, slots=True)
class Home:
    """Folders of one test: the user's home, an empty project, and a place for temporary files.

    Codex refuses a home below ``TMPDIR``, hence the third one.
    """

    home: Path
    project: Path
    tmp: Path

    @property
    def out(self) -> Path:
        """What the client wrote to its standard output."""
        return self.tmp.with_name("out")

    @property
    def err(self) -> Path:
        """What the client wrote to its standard error."""
        return self.tmp.with_name("err")

    @property
    def path(self) -> str:
        """The PATH of commands: first the folder of this interpreter, which has pytest."""
        return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def environment(self, proxy: str, **more: str) -> dict[str, str]:
        """Everything that a client may see of ours; ``proxy`` stands for the rest of the world."""
        return {
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "PATH": self.path,
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "NO_COLOR": "1",
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), proxy),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            **more,
        }

    def write(self, **files: str) -> None:
        """The project is a git repository with these Python files, committed."""
        for name, text in files.items():
            (self.project / f"{name}.py").write_text(text, "utf-8")
        commit(self.project)


def commit(project: Path) -> None:
    """Make ``project`` a git repository with all its files in one commit."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    hidden = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    hidden |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for command in (
        ("init", "-q"),
        ("add", "-A"),
        (*identity, "commit", "-q", "--allow-empty", "-m", "start"),
    ):
        subprocess.run(["git", *command], cwd=project, check=True, env=hidden)


@asynccontextmanager
async def started(
    argv: list[str], home: Home, env: dict[str, str], *, talk: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A client running in the project, as the leader of its own process group, ended on leaving.

    What it says goes to files (``home.out``, ``home.err``), not to pipes: commands that a client
    has started may outlive it and would hold a pipe open. With ``talk``, input and output are pipes.
    """
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    with home.out.open("wb") as out, home.err.open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=home.project,
            env=env,
            stdin=pipe if talk else nothing,
            stdout=pipe if talk else out,
            stderr=err,
            start_new_session=True,
            limit=1 << 26,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def run(
    argv: list[str], home: Home, env: dict[str, str], *, limit_s: float = LIMIT_S
) -> Done:
    """Run a client to its end, or to the limit, with nothing to read from its standard input."""
    async with started(argv, home, env) as process:
        try:
            async with asyncio.timeout(limit_s):
                await process.wait()
        except TimeoutError:
            said = home.out.read_text()[-3000:] + home.err.read_text()[-3000:]
            pytest.fail(f"{argv[0]} did not end within {limit_s:.0f} s\n{said}")
    assert process.returncode is not None
    return Done(process.returncode, home.out.read_text(), home.err.read_text())
