"""The agent from Python: the names that ``from tightloop import ...`` offers.

::

    async with Agent(repo=".", model="patchling") as agent:
        turn = await agent.run("fix the failing test")
        print(turn.text, turn.diff)
        await agent.apply()

Everything here is put together by ``harness``; nothing of the repository is changed before ``apply``.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from tightloop.agent.approval.interface import Approver
from tightloop.agent.events import Event
from tightloop.agent.steering import Steer
from tightloop.agent.turn import Limits, Status, TurnResult
from tightloop.harness.backend import UsageError
from tightloop.harness.output_schema import OutputSchema
from tightloop.harness.past import NoSuchThread
from tightloop.harness.resuming import choose, resumed_settings
from tightloop.harness.settings import Settings
from tightloop.harness.thread import Thread, open_thread
from tightloop.protocol.deltas import Usage
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.workspace import WorkspaceConflict
from tightloop.trace.ledger import build_ledger
from tightloop.trace.log import state_directory

__all__ = [
    "Agent",
    "Limits",
    "NoSuchThread",
    "SandboxError",
    "Status",
    "Turn",
    "UsageError",
    "WorkspaceConflict",
    "run",
]


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn came to. ``diff`` is all the work of the conversation that is not applied yet."""

    text: str
    status: Status
    message: str
    """Why it did not complete; empty when it did."""
    diff: str
    usage: Usage
    ledger: Mapping[str, float]
    """Where the time went, in seconds; the parts add up to ``wall_s``. See docs/glossary.md."""
    wall_s: float
    result: TurnResult
    """All that is known: events, spans, round trips."""

    @property
    def is_completed(self) -> bool:
        """Whether the model has said its last word, and nothing spoke against it."""
        return self.status is Status.COMPLETED

    @property
    def data(self) -> Any:
        """The last message as JSON, for an agent with an output schema. Raises ValueError."""
        return msgspec.json.decode(self.text)


class Agent:
    """A conversation on a private view of ``repo``; an async context manager.

    ``model``, ``server``, ``transport`` and ``api_key_env`` choose the backend as the options of
    ``tightloop exec`` do, ``policy``, ``sandbox`` and ``config`` what commands may do, ``approval`` what is
    asked first, and ``approver`` whom; without one that is declined. ``resume`` and ``fork`` take an id, or ``last``. ``output_schema`` is the JSON schema of the last message. ``on_event``
    gets every event (``tightloop.agent.events``), ``on_note`` what a person should know; both are
    called on the event loop, must be quick and must not raise.

    Entering raises UsageError, SandboxError or PolicyError when it cannot begin. One turn at a
    time, on the loop it was entered on.
    """

    def __init__(
        self,
        repo: str | os.PathLike[str] | None = None,
        *,
        model: str | None = None,
        server: str | None = None,
        transport: str = "ws",
        api_key_env: str | None = None,
        policy: str | None = None,
        sandbox: str | None = None,
        config: str | os.PathLike[str] | None = None,
        approval: str | None = None,
        approver: Approver | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        limits: Limits | None = None,
        speculates: bool = True,
        resume: str | None = None,
        fork: str | None = None,
        output_schema: Mapping[str, Any] | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        if resume is not None and fork is not None:
            raise UsageError("resume and fork contradict each other: give one of them")
        self._repo = None if repo is None else Path(repo)
        self._settings = Settings(
            repo=self._repo or Path(),
            state_dir=state_directory() if state_dir is None else Path(state_dir),
            model=model,
            server=server,
            transport=transport,
            api_key_env=api_key_env,
            policy=policy,
            sandbox=sandbox,
            config=None if config is None else Path(config),
            approval=approval,
            limits=limits or Limits(),
            speculates=speculates,
            verb="api",
        )
        self._approver = approver
        self._origin = fork if resume is None else resume
        self._is_fork = fork is not None
        self._schema = None if output_schema is None else OutputSchema(output_schema)
        self._audience = _Audience(on_event, on_note)
        self._stack = AsyncExitStack()
        self._thread: Thread | None = None
        self._turn: asyncio.Task[TurnResult] | None = None

    async def __aenter__(self) -> Self:
        settings, past = self._settings, None
        if self._origin is not None:
            past = choose(settings.state_dir, self._origin, self._repo)
            settings = resumed_settings(settings, past)
        self._thread = await self._stack.enter_async_context(
            open_thread(
                settings,
                self._audience,
                past=past,
                is_fork=self._is_fork,
                approver=self._approver,
            )
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread = None
        await self._stack.__aexit__(kind, error, trace)

    @property
    def thread(self) -> Thread:
        """What is open: workspace, sandbox, log. Raises RuntimeError outside of ``async with``."""
        if self._thread is None:
            raise RuntimeError("the agent is not open: use 'async with Agent(...) as agent'")
        return self._thread

    @property
    def id(self) -> str:
        """The conversation's, for ``resume`` and ``fork``."""
        return self.thread.id

    @property
    def is_running(self) -> bool:
        """Whether a turn is being worked on."""
        return self._turn is not None

    async def run(self, prompt: str) -> Turn:
        """One turn. What goes wrong in it ends in ``status`` and ``message``, not in an exception.

        A cancellation ends the turn, and so does ``interrupt``. Raises RuntimeError when a turn is
        running already.
        """
        thread = self.thread
        if self._turn is not None:
            raise RuntimeError("a turn is running: steer it, or wait for its end")
        options = {} if self._schema is None else {"request": self._schema.request}
        turn = asyncio.create_task(thread.run_turn(prompt, **options))
        self._turn = turn
        try:
            await asyncio.wait([turn])
        except asyncio.CancelledError:
            turn.cancel()
            await asyncio.wait([turn])
            raise
        finally:
            self._turn = None
        result = thread.agent.last_result if turn.cancelled() else turn.result()
        if result is None:
            raise asyncio.CancelledError
        return await self._turn_of(thread, result)

    async def stream(self, prompt: str) -> AsyncGenerator[Event, None]:
        """One turn's events as they come, ``turn.completed`` or ``turn.failed`` the last.

        Closing the iterator early (``contextlib.aclosing``) ends the turn.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._audience.queues.append(queue)
        turn = asyncio.create_task(self.run(prompt))
        turn.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._audience.queues.remove(queue)
            turn.cancel()
            await asyncio.wait([turn])
        turn.result()  # says what kept it from beginning

    def steer(self, text: str, *, now: bool = False) -> Steer:
        """A message for the running turn, or for the next one; see ``agent.steering``.

        ``now``: the response that is being made ends for it, if it has made no call yet.
        """
        return self.thread.agent.steer(text, now=now)

    def withdraw(self, steer: Steer) -> bool:
        """Take a steer back; False when it has gone out."""
        return self.thread.agent.withdraw(steer)

    def interrupt(self) -> bool:
        """End the running turn, whose ``run`` returns with the status CANCELLED; whether there was one."""
        return self._turn is not None and self._turn.cancel()

    async def diff(self) -> str:
        """All the work that is not applied yet, as a patch that ``git apply`` takes."""
        return await self.thread.workspace.diff()

    async def apply(self, *, force: bool = False) -> list[str]:
        """The repository holds the work, all of it or nothing; the written paths.

        Raises WorkspaceConflict naming the files that were changed there meanwhile, unless ``force``.
        """
        return await self.thread.apply(force)

    async def undo(self) -> list[str]:
        """The last turn's work is gone, also from the repository if it was applied; its paths.

        Called again, that of the turn before. Raises SandboxError when there is none, and
        WorkspaceConflict naming the files that were changed since: then nothing was changed.
        """
        return list((await self.thread.desk.undo()).paths)

    async def _turn_of(self, thread: Thread, result: TurnResult) -> Turn:
        status, message = result.status, result.message
        if self._schema is not None and status is Status.COMPLETED:
            problem = self._schema.problem(result.text)
            if problem:
                status, message = Status.FAILED, f"the last message does not match: {problem}"
        ledger = build_ledger(result.start_ns, result.end_ns, result.spans, result.round_trips)
        diff = await thread.workspace.diff()
        return Turn(
            result.text, status, message, diff, result.usage, ledger.parts, result.wall_s, result
        )


def run(
    prompt: str,
    repo: str | os.PathLike[str] | None = None,
    *,
    apply: bool = False,
    **options: Any,
) -> Turn:
    """One turn without a loop of one's own; ``options`` are those of ``Agent``.

    With ``apply`` the repository gets the work of a turn that has completed. Raises what entering an
    ``Agent`` and ``Agent.apply`` raise, and RuntimeError inside a running event loop.
    """

    async def main() -> Turn:
        async with Agent(repo, **options) as agent:
            turn = await agent.run(prompt)
            if apply and turn.is_completed:
                await agent.apply()
            return turn

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    raise RuntimeError("inside a running event loop, use 'async with Agent(...)'")


class _Audience:
    """Hands events to a callback and to whoever streams."""

    is_json = True

    def __init__(
        self, on_event: Callable[[Event], None] | None, on_note: Callable[[str], None] | None
    ) -> None:
        self.queues: list[asyncio.Queue[Event | None]] = []
        self._on_event = on_event
        self._on_note = on_note

    def note(self, text: str) -> None:
        """See ``Audience``."""
        if self._on_note is not None:
            self._on_note(text)

    def listen(self, event: Event) -> None:
        """See ``Audience``."""
        for queue in self.queues:
            queue.put_nowait(event)
        if self._on_event is not None:
            self._on_event(event)
