"""The two ways of fixing one bug that the demo compares: same model, same agent, same tools.

=============== ============================= ==============================================
                classic                       tight
=============== ============================= ==============================================
transport       new HTTP connection per turn  one WebSocket for the whole demo
history         sent again with every request previous_response_id and the new items
isolation       entered for every command     entered once, an exec server inside
tests           cold python -m pytest         fork of a process that has pytest loaded
workspace       plain copy                    copy-on-write view of a preloaded repository
=============== ============================= ==============================================

What is done before the user's message (workspace, connection, warm process) is timed apart as
set-up; the fix itself is timed from the message to the agent's last word.
"""

import os
import shutil
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tightloop.agent.loop import Agent
from tightloop.agent.prompt import Surroundings, opening
from tightloop.agent.tools.apply_patch import ApplyPatch
from tightloop.agent.tools.exec_command import ExecCommand
from tightloop.agent.tools.interface import ToolContext
from tightloop.agent.turn import Limits, Status, TurnResult
from tightloop.bench.bugs import MODULE, TESTS, Bug, write_repository
from tightloop.client.http import HttpTransport
from tightloop.client.session import Session
from tightloop.client.transport import Transport
from tightloop.client.websocket import WebSocketTransport
from tightloop.sandbox.interface import Command, Policy, Sandbox
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.single_use import SingleUseSandbox
from tightloop.sandbox.workspace import Workspace, open_workspace
from tightloop.trace.clock import now_ns
from tightloop.trace.ledger import Ledger, build_ledger

PROMPT = "The tests fail. Fix the bug in the code, not in the tests. Run them with `python -m pytest -q`."
ENVIRONMENT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""The repositories need no plugin; loading those that happen to be installed would slow the cold
runs of the classic path only, and flatter the tight one."""

LIMITS = Limits(max_turns=40, wall_s=120.0)


@dataclass(frozen=True, slots=True)
class FixRun:
    """One bug over one path. ``is_fixed`` is the verdict of a cold run of the original tests."""

    path: str
    bug: Bug
    is_fixed: bool
    setup_s: float
    turn: TurnResult
    ledger: Ledger
    workspace: str = "overlay"
    """``overlay`` or ``copy``, with the reason when it is not what was wanted."""

    @property
    def claims_fixed(self) -> bool:
        """Whether the agent itself said so: its last test run passed."""
        return self.turn.status is Status.COMPLETED and "could not" not in self.turn.text


class FixPath(Protocol):
    """One way of fixing bugs; open once, then any number of bugs one after the other."""

    name: str

    async def open(self) -> None: ...
    async def fix(self, bug: Bug, directory: Path) -> FixRun: ...
    async def close(self) -> None: ...


class ClassicPath:
    """See the table at the top of the module."""

    name = "classic"

    def __init__(self, url: str, model: str, isolation: str, state_dir: Path) -> None:
        self._model, self._isolation, self._state_dir = model, isolation, state_dir
        self._transport = HttpTransport(url, reuse_connection=False)

    async def open(self) -> None:
        """Nothing is kept open on this path."""

    async def fix(self, bug: Bug, directory: Path) -> FixRun:
        """Fix one bug in a new repository at ``directory``."""
        write_repository(bug, directory)
        start_ns = now_ns()
        async with AsyncExitStack() as stack:
            workspace = await open_workspace(directory, state_dir=self._state_dir, kind="copy")
            stack.push_async_callback(workspace.discard)
            policy = workspace.completed(
                Policy(workspace.path, warm_tests=False, environment=ENVIRONMENT)
            )
            sandbox = SingleUseSandbox(policy, kind=self._isolation)
            setup_s = (now_ns() - start_ns) / 1e9
            session = Session(
                self._transport, model=self._model, tools=definitions(), full_resend=True
            )
            return await run_agent(self.name, bug, session, sandbox, workspace, setup_s)

    async def close(self) -> None:
        """Release the transport."""
        await self._transport.close()


class TightPath:
    """See the table at the top of the module."""

    name = "tight"

    def __init__(self, url: str, model: str, isolation: str, state_dir: Path) -> None:
        self._model, self._isolation, self._state_dir = model, isolation, state_dir
        self._transport: Transport = WebSocketTransport(url)

    async def open(self) -> None:
        """Open the one connection."""
        await self._transport.connect()

    async def fix(self, bug: Bug, directory: Path) -> FixRun:
        """Fix one bug in a new repository at ``directory``."""
        write_repository(bug, directory)
        start_ns = now_ns()
        async with AsyncExitStack() as stack:
            workspace = await open_workspace(directory, state_dir=self._state_dir)
            stack.push_async_callback(workspace.discard)
            policy = workspace.completed(Policy(workspace.path, environment=ENVIRONMENT))
            sandbox = await open_sandbox(policy, kind=self._isolation)
            stack.push_async_callback(sandbox.close)
            await sandbox.warm_tests_ready()
            setup_s = (now_ns() - start_ns) / 1e9
            session = Session(self._transport, model=self._model, tools=definitions())
            return await run_agent(self.name, bug, session, sandbox, workspace, setup_s)

    async def close(self) -> None:
        """Close the connection."""
        await self._transport.close()


def definitions() -> list[dict[str, object]]:
    """The tools offered, as they stand in requests."""
    return [ExecCommand().definition(), ApplyPatch().definition()]


async def run_agent(
    name: str, bug: Bug, session: Session, sandbox: Sandbox, workspace: Workspace, setup_s: float
) -> FixRun:
    """One turn of the agent, then the verdict, taken cold and outside the timed turn."""
    surroundings = Surroundings(workspace.path, sandbox.kind)
    context = ToolContext(workspace.path, sandbox)
    agent = Agent(
        session,
        [ExecCommand(), ApplyPatch()],
        context,
        opening=[opening(surroundings, [])],
        limits=LIMITS,
    )
    turn = await agent.run_turn(PROMPT)
    ledger = build_ledger(turn.start_ns, turn.end_ns, turn.spans, turn.round_trips)
    is_fixed = await passes_cold(bug, workspace.path, sandbox.kind)
    kind = f"{workspace.kind} ({workspace.reason})" if workspace.reason else workspace.kind
    return FixRun(name, bug, is_fixed, setup_s, turn, ledger, kind)


async def passes_cold(bug: Bug, workspace: Path, isolation: str) -> bool:
    """Whether the module as it is now passes the original tests in a new interpreter."""
    directory = workspace.parent / f"{workspace.name}-verdict"
    directory.mkdir()
    try:
        shutil.copyfile(workspace / MODULE, directory / MODULE)
        (directory / TESTS).write_text(bug.tests, encoding="utf-8")
        policy = Policy(directory, warm_tests=False, environment=ENVIRONMENT)
        sandbox = SingleUseSandbox(policy, kind=isolation)
        argv = ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        result = await sandbox.run(Command(argv=argv, timeout_s=60.0))
        return result.exit_code == os.EX_OK
    finally:
        shutil.rmtree(directory)
