"""``tightloop exec --json`` as a real process whose events are read as they come."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from tests.e2e.conftest import command
from tests.e2e.relay import Event


def commit(place: Path, files: dict[str, str]) -> Path:
    """A repository of these files."""
    place.mkdir()
    for name, text in files.items():
        (place / name).write_text(text)
        if text.startswith("#!"):
            (place / name).chmod(0o755)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "begin"]):
        settings = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
        subprocess.run(["git", "-C", str(place), *settings, *words], check=True)
    return place


class Run:
    """A ``tightloop exec --json`` under way."""

    def __init__(self, process: asyncio.subprocess.Process, state: Path) -> None:
        self.events: list[Event] = []
        self.process = process
        self.state = state

    async def until(self, wanted: Callable[[Event], bool]) -> Event:
        """The next event that is wanted."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.events.append(orjson.loads(line))
            if wanted(self.events[-1]):
                return self.events[-1]
        assert self.process.stderr is not None
        raise AssertionError((await self.process.stderr.read()).decode())

    async def end(self) -> int:
        """The status, when all of its events are here."""
        out, _ = await self.process.communicate()
        self.events += [orjson.loads(line) for line in out.splitlines()]
        return int(self.process.returncode or 0)

    async def say(self, **line: object) -> None:
        """One line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(orjson.dumps(line) + b"\n")
        await self.process.stdin.drain()

    def items(self, kind: str) -> list[Any]:
        """The items of this type that are complete."""
        done = [event["item"] for event in self.of("item.completed")]
        return [item for item in done if item["type"] == kind]

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["type"] == kind]

    def commands(self) -> list[str]:
        return [item["command"] for item in self.items("command_execution")]

    def patch(self) -> set[str]:
        """Lines of what the turn came to that say what changed."""
        path = Path(self.of("thread.started")[0]["tightloop"]["patch"])
        lines = path.read_text().splitlines()
        return {
            line for line in lines if line[:1] in "+-" and not line.startswith(("---", "+++ /"))
        }


@asynccontextmanager
async def running(
    repo: Path, url: str, *more: str, prompt: str = "do it", is_led: bool = False
) -> AsyncIterator[Run]:
    """The program at work on the repository. ``is_led`` ones take lines on standard input."""
    state = repo.parent / "agent"
    words = ["exec", prompt, "--json", "--repo", str(repo), "--state-dir", str(state)]
    if is_led:
        words += ["--input-format", "jsonl"]
    process = await asyncio.create_subprocess_exec(
        *command(),
        *words,
        "--server",
        url,
        "--no-speculation",
        *more,
        stdin=asyncio.subprocess.PIPE if is_led else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    try:
        yield Run(process, state)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def is_command_end(event: Event) -> bool:
    is_item = event["type"] == "item.completed"
    return is_item and bool(event["item"]["type"] == "command_execution")
