"""A race in one process: real server, real socket, real sandboxes, and models that follow a script each.

The tests of the repository are the shell script ``./pytest``, which does what the file ``m`` says.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.harness.audience import Listening
from tightloop.agent import events as said
from tightloop.agent.turn import Limits
from tightloop.engine.interface import GenerationRequest
from tightloop.engine.scripted import Answer, ScriptedEngine, call_answer, text_answer
from tightloop.governance.keys import KeyRing
from tightloop.harness.racing.contest import SEED, Contest
from tightloop.harness.racing.modes import Wanted, open_mode
from tightloop.harness.settings import Settings
from tightloop.harness.thread import Thread, open_thread
from tightloop.protocol.items import CustomToolCallOutput, FunctionCallOutput, Message
from tightloop.sandbox.entries import Change
from tightloop.sandbox.verdicts import Difference, ShutOff
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint

RED, GREEN = "echo 1 failed; exit 1\n", "echo 1 passed\n"
TEST = "./pytest"
PROMPT = "mend it"
_OUTPUTS = (FunctionCallOutput, CustomToolCallOutput)
_NUMBERS = itertools.count()


def runs_tests() -> Answer:
    """The model runs the tests."""
    return command(TEST)


def command(line: str) -> Answer:
    """The model runs a command."""
    return call_answer("exec_command", {"cmd": line}, f"call_{next(_NUMBERS)}")


def patch(old: str, new: str, path: str = "m") -> Answer:
    """The model replaces the only line of a file."""
    lines = [f"-{old.rstrip()}", f"+{new.rstrip()}"]
    text = "\n".join(["*** Begin Patch", f"*** Update File: {path}", "@@", *lines, "*** End Patch"])
    return call_answer("apply_patch", text, f"call_{next(_NUMBERS)}")


def words(text: str = "Done.") -> Answer:
    """The model's last word."""
    return text_answer(text)


def number_of(request: GenerationRequest) -> int:
    """Which candidate asks, by what makes it different."""
    return 0 if request.sampling.seed is None else request.sampling.seed - SEED


def by_candidate(parts: Mapping[int, Sequence[Answer]]) -> Callable[[GenerationRequest], Answer]:
    """A script for each; how far it is follows from the conversation since the last user's prompt.

    Messages of checks count as outputs, so that a script can answer them.
    """

    def script(request: GenerationRequest) -> Answer:
        answers = parts[number_of(request)]
        context = request.context()
        begun = max(
            (n for n, item in enumerate(context) if isinstance(item, Message) and _asks(item)),
            default=0,
        )
        num = sum(isinstance(item, _OUTPUTS) or _is_told(item) for item in context[begun + 1 :])
        return answers[min(num, len(answers) - 1)]

    return script


def _asks(item: Message) -> bool:
    return item.role == "user" and item.text.startswith(PROMPT)


def _is_told(item: object) -> bool:
    return isinstance(item, Message) and item.role == "user" and item.text.startswith(said.CHECK)


@dataclass
class Watching(Listening):
    """Says that something was said."""

    news: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self, event: said.Event) -> None:
        """See ``Audience``."""
        super().listen(event)
        self.news.set()


@dataclass
class Track:
    """What a test can look at."""

    thread: Thread
    mode: Any
    engine: ScriptedEngine
    server: Server
    heard: Watching
    repo: Path
    state: Path

    @property
    def contest(self) -> Contest:
        """The mode, which is one."""
        assert isinstance(self.mode, Contest)
        return self.mode

    def file(self, name: str = "m") -> str:
        """As the conversation's workspace has it."""
        return (self.thread.workspace.path / name).read_text()

    async def changes(self) -> list[Change]:
        """Of the conversation's workspace."""
        return await self.thread.workspace.changes()

    def items(self) -> list[said.ThreadItem]:
        """All that were completed, in order."""
        return [e.item for e in self.heard.events if isinstance(e, said.ItemCompleted)]

    def states(self, number: int) -> list[str]:
        """What was said of a candidate, without its small steps."""
        raced = [e for e in self.heard.events if isinstance(e, said.Raced)]
        return [e.state for e in raced if e.candidate == number and e.state != "working"]

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Return once it is, looking after each event."""
        while not is_so():
            self.heard.news.clear()
            await self.heard.news.wait()


@asynccontextmanager
async def track(
    place: Path,
    parts: Mapping[int, Sequence[Answer]] | Callable[[GenerationRequest], Answer],
    wanted: Wanted,
    *,
    files: Mapping[str, str] | None = None,
    config: str | None = f'[test]\ncommand = "{TEST}"\n',
    limits: Limits | None = None,
    is_warm: bool = False,
    **more: Any,
) -> AsyncIterator[Track]:
    """A conversation over WebSocket, ready for turns; ``more`` are further settings.

    At the end no workspace and no slot is left.
    """
    repo, state = place / "repo", place / "state"
    repo.mkdir(parents=True)
    (repo / "pytest").write_text("#!/bin/bash\n. ./m\n")
    (repo / "pytest").chmod(0o755)
    for name, content in {"m": RED, **(files or {})}.items():
        (repo / name).write_text(content)
    if config is not None:
        (repo / ".tightloop.toml").write_text(config)
    if not is_warm:  # a shell script gains nothing by it, and the start of such a process is slow
        found = (Difference("m", "passed", "failed"),)
        ShutOff(state).turn_off(repo, found, "warm.log", "cold.log")
    script = parts if callable(parts) else by_candidate(parts)
    engine = ScriptedEngine(script, counts_input=True)
    endpoint = Endpoint(engine)
    server = Server(endpoint, Access(KeyRing([]), "127.0.0.1"), host="127.0.0.1", port=0)
    await server.start()
    settings = Settings(
        repo=repo,
        state_dir=state,
        model="scripted",
        server=server.url,
        sandbox="bubblewrap",
        limits=limits or Limits(),
        speculates=False,
    )
    if more.get("planner_server") == "same":
        more["planner_server"] = server.url
    heard = Watching()
    try:
        async with (
            open_thread(replace(settings, **more), heard) as thread,
            open_mode(thread, wanted) as mode,
        ):
            yield Track(thread, mode, engine, server, heard, repo, state)
    finally:
        await server.stop(grace_s=0)
    for name in ("workspaces", "tightloop-slots"):
        left = state / name
        assert not left.is_dir() or list(left.iterdir()) == [], list(left.iterdir())
    assert (repo / "m").read_text() == (files or {}).get("m", RED)
