"""``tightloop exec`` as a real process, with a script for its model."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson


def script(directory: Path, answers: Sequence[Any], **more: Any) -> str:
    """The model that says this."""
    path = directory / f"script-{len(list(directory.glob('script-*')))}.json"
    path.write_bytes(orjson.dumps({"answers": list(answers), **more}))
    return f"scripted:{path}"


def call(name: str, arguments: dict[str, Any] | str) -> dict[str, Any]:
    """A step of a script."""
    return {"call": {"name": name, "arguments": arguments}}


def words(repo: Path, *more: str) -> list[str]:
    """Of a command line: the state is beside the repository, and nothing isolates."""
    return [*("exec", "--state-dir", str(repo.parent / "state"), "--sandbox", "none"), *more]


def finished(repo: Path, *more: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """A run in the repository, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "tightloop", *words(repo, *more)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=repo,
        env={**os.environ, "COLUMNS": "80"},
        **({"stdin": subprocess.DEVNULL} | options if "input" not in options else options),
    )


def events_of(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    """What it has said."""
    return [orjson.loads(line) for line in done.stdout.splitlines()]


@dataclass
class Running:
    """A run with ``--json`` whose events are read as they come."""

    process: "subprocess.Popen[str]"
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def stdin(self) -> IO[str]:
        """Where lines go."""
        assert self.process.stdin is not None
        return self.process.stdin

    def say(self, **line: Any) -> None:
        """One line on its standard input."""
        self.stdin.write(orjson.dumps(line).decode() + "\n")
        self.stdin.flush()

    def until(self, wanted: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The next event that is wanted. Fails when the run ends before."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = orjson.loads(line)
            self.events.append(event)
            if wanted(event):
                return dict(event)
        raise AssertionError(f"ended before: {self.events}")

    def rest(self) -> int:
        """Everything to its end; the exit code."""
        out, err = self.process.communicate(timeout=50)
        self.events += [orjson.loads(line) for line in out.splitlines()]
        assert "Traceback" not in err
        return self.process.returncode


def running(repo: Path, *more: str) -> Running:
    """A run that has only begun. Ends with its standard input, or is killed."""
    return Running(
        subprocess.Popen(
            [sys.executable, "-m", "tightloop", *words(repo, "--json", *more)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=repo,
        )
    )
