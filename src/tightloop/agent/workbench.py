"""What the agent's commands run in: the session's sandbox, and what goes on beside it.

Beside it means in copies of the workspace: test commands that the model is expected to ask for next,
and checks of verdicts that came from warm processes. The tools know nothing of it: to them this is a
sandbox. The loop asks it, before it calls a turn a success, what speaks against that.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tightloop.agent.auditing import Auditor, Contradiction, cold_text, tree_of
from tightloop.agent.guess import TestCommands
from tightloop.agent.patch.apply import Impossible, StreamEvent
from tightloop.agent.patch.operations import FileSeen, PatchEnded
from tightloop.agent.speculation import Output, Scratch, Speculator
from tightloop.agent.tools.exec_command import is_test_run
from tightloop.sandbox.aside import Aside, FreshAside, Open, RenewedAside, scratch_command
from tightloop.sandbox.interface import Command, CommandResult, Policy, Sandbox, SandboxError
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.verdicts import ShutOff
from tightloop.sandbox.workspace import Workspace
from tightloop.trace.check_runs import CheckFigures
from tightloop.trace.clock import Clock, MonotonicClock
from tightloop.trace.speculation import Speculation, Try, sum_up

Confirm = Callable[[], Awaitable[list[tuple[Command, CommandResult]] | None]]
"""See ``sandbox.warmed.WarmedSandbox.confirm``."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a workbench is made for. ``open_one`` opens a sandbox like ``persistent`` for another
    policy; ``policy`` is the one that ``persistent`` was opened with. ``sandbox`` is what runs the
    commands, if that is not ``persistent`` itself.

    ``confirm`` runs cold what passed warm there and is confirmed by nobody else.
    ``has_others``: in ``sandbox`` more runs than was asked for here, such as daemons and checks of
    warm commands.
    ``speculates`` wants tests run ahead, in what ``open_aside`` opens, else each in a new isolation;
    ``test_command`` is the one to expect before the model has run any. ``note`` is told what a person
    should know.
    """

    workspace: Workspace
    persistent: PersistentSandbox
    policy: Policy
    open_one: Open
    state_dir: Path
    sandbox: Sandbox | None = None
    confirm: Confirm | None = None
    has_others: bool = False
    speculates: bool = True
    test_command: str | None = None
    clock: Clock = field(default_factory=MonotonicClock)
    note: Callable[[str], None] = lambda _text: None
    open_aside: Callable[[], Awaitable[Aside]] | None = None
    num_cores: int | None = None


class Workbench:
    """A ``Sandbox`` and an ``overseer.Overseer``; see ``open_workbench``."""

    def __init__(self, setting: Setting, group: asyncio.TaskGroup) -> None:
        self.kind = setting.persistent.kind
        self.total = Speculation()
        """What ran ahead in all turns so far."""
        self.no_speculation = ""
        """Why nothing runs ahead; empty when it does."""
        self.none_ahead = ""
        """Why nothing ran ahead in the last turn although files changed; empty when something did."""
        self.allows_ahead: Callable[[Command], bool] = lambda _command: True
        """Whether a command may run before the model has asked for it; set by whoever opened it."""
        self._setting = setting
        self._group = group
        self._sandbox = setting.sandbox or setting.persistent
        self._persistent = setting.persistent
        self._commands = TestCommands(setting.workspace.path, setting.test_command)
        self._scratch = Scratch(setting.persistent, scratch_command(setting.policy))
        self._speculator: Speculator | None = None
        self._tries: list[Try] = []
        self._expected: Command | None = None  # by a patch that came before all was prepared
        self._age = 0
        self._is_patch_known = False
        self._preparing: asyncio.Task[None] | None = None
        self._aside: RenewedAside | None = None
        self._fresh = FreshAside(setting.policy, setting.open_one, self.kind)
        self._auditor = Auditor(
            setting.workspace,
            self._fresh,
            ShutOff(setting.state_dir),
            setting.state_dir / "warm-shut-off" / "logs",
            group,
            self._on_wrong,
        )

    async def begin(self) -> None:
        """No command has run yet: get ready to run tests ahead, in the background."""
        self.no_speculation = _why_not(self._setting)
        if self.no_speculation:
            return
        await self._scratch.remember()
        self._preparing = self._group.create_task(self._prepare(), name="prepare to run ahead")

    async def _prepare(self) -> None:
        """After the session's own warm process, which is needed first."""
        setting = self._setting
        await self._persistent.warm_tests_ready()
        if setting.open_aside is not None:
            self._aside = RenewedAside(setting.open_aside)
            try:
                await self._aside.ready()
            except (SandboxError, OSError) as error:
                setting.note(f"tests that run ahead are cold: {error}")
                self._aside = None
        self._speculator = Speculator(
            setting.workspace,
            self._aside or self._fresh,
            self._scratch,
            setting.clock,
            self._group,
            self._tries.append,
            setting.num_cores,
        )
        self._speculator.allows_warm = self._persistent.allows_warm
        if self._expected is not None:
            self._speculator.start(self._expected)

    async def start(self) -> None:
        """It was started by whoever opened it."""

    async def close(self) -> None:
        """Nothing goes on beside the sandbox any more; the sandbox itself stays."""
        if self._preparing is not None:
            self._preparing.cancel()
            await asyncio.wait([self._preparing])
        if self._speculator is not None:
            await self._speculator.close()
        await self._auditor.finish_turn()
        if self._aside is not None:
            await self._aside.close()

    async def quiet(self) -> None:
        """Nothing is being prepared, tried or checked at the moment; results may wait to be used."""
        if self._preparing is not None and not self._preparing.done():
            await asyncio.wait([self._preparing])
        if self._speculator is not None:
            await self._speculator.quiet()
        await self._auditor.quiet()

    # -- for the tools

    async def run(self, command: Command, on_output: Output | None = None) -> CommandResult:
        """See ``Sandbox.run``."""
        line = command.script or " ".join(command.argv or ())
        if is_test_run(line):
            return await self._run_test(command, on_output)
        self._age += 1
        self._scratch.note_command()
        if self._speculator is not None:
            self._speculator.yield_cores()
        try:
            return await self._sandbox.run(command, on_output)
        finally:
            self._scratch.note_command()  # who looked meanwhile has not seen all of it

    async def _run_test(self, command: Command, on_output: Output | None) -> CommandResult:
        self._commands.note(command)
        self._expected = None
        # Read beside the run, which takes longer as a rule; a run that writes is no ordinary one.
        reading = self._group.create_task(asyncio.to_thread(tree_of, self._setting.workspace))
        ahead = None
        if self._speculator is not None:
            ahead = await self._speculator.take(command, on_output)
        if ahead is not None:
            self._auditor.note(command, ahead, await reading, self._age)
            return ahead
        self._scratch.note_command()
        is_reporting = self._persistent.allows_warm
        try:
            result = await self._sandbox.run(replace(command, is_reporting=is_reporting), on_output)
        finally:
            self._scratch.note_command()
        if self._speculator is not None:
            self._speculator.note_real(command, result)
        self._auditor.note(command, result, await reading, self._age)
        return result

    def follow(self, event: StreamEvent) -> None:
        """More is known of a patch that streams in; for ``ToolContext.on_patch``."""
        if isinstance(event, FileSeen) and not self._is_patch_known:
            self._is_patch_known = True
            self._persistent.refresh()
        elif isinstance(event, PatchEnded | Impossible):
            self._is_patch_known = False

    def changed(self, paths: tuple[str, ...]) -> None:
        """A patch has changed these files; for ``ToolContext.on_changed``."""
        self._age += 1
        self._is_patch_known = False
        self._persistent.refresh()
        command = self._commands.guess(paths)
        if command is not None and not self.allows_ahead(command):
            command = None
            self.none_ahead = "the test command may not run without a question"
        elif command is None:
            self.none_ahead = "no test command is known"
        else:
            self.none_ahead = (
                "this command leaves files, reads caches or was tried in vain too often"
            )
        if self.no_speculation:
            self.none_ahead = self.no_speculation
        elif self._speculator is None:
            self._expected = command
            if command is not None:
                self.none_ahead = "the tests were asked for before it was ready"
        elif command is None:
            self._speculator.drop("the tree changed")
        else:
            self._speculator.start(command)

    def touched(self) -> None:
        """Files were changed by no tool: the user's own edits came in, or work was taken back."""
        self._age += 1
        self._persistent.refresh()
        if self._speculator is not None:
            self._speculator.drop("the tree changed")

    # -- for the loop

    def begin_turn(self, prompt: str) -> None:
        """See ``Overseer.begin_turn``."""
        self.none_ahead = ""
        self._commands.read(prompt)

    def read_rules(self, text: str) -> None:
        """What a project tells agents; test commands named there may be asked for."""
        self._commands.read(text)

    def take_news(self) -> list[str]:
        """See ``Overseer.take_news``."""
        return [one.as_text() for one in self._auditor.take_news()]

    async def objections(self) -> list[str] | None:
        """See ``Overseer.objections``."""
        if self._speculator is not None:
            self._speculator.drop("nobody asked for it")
        found = await self._auditor.final(self._age)
        self._tell_notes()
        others = await self._failing_cold()
        if found is None and others is None:
            return None
        return [*(one.as_text() for one in found or ()), *(others or ())]

    async def _failing_cold(self) -> list[str] | None:
        """Warm commands of the project that fail when they are cold."""
        if self._setting.confirm is None:
            return None
        try:
            failed = await self._setting.confirm()
        except SandboxError as error:
            self._setting.note(f"warm commands: not checked: {error}")
            return []
        self._scratch.note_command()
        return None if failed is None else [cold_text(*one) for one in failed]

    async def finish_turn(self) -> list[Try]:
        """See ``Overseer.finish_turn``."""
        self._expected = None
        if self._speculator is not None:
            await self._speculator.finish_turn()
        await self._auditor.finish_turn()
        self._tell_notes()
        tries = list(self._tries)
        self._tries.clear()
        if tries:
            self.none_ahead = ""
        self.total += sum_up(tries)
        return tries

    def check_figures(self) -> CheckFigures | None:
        """See ``Overseer.check_figures``."""
        return None

    def _tell_notes(self) -> None:
        while self._auditor.notes:
            self._setting.note(self._auditor.notes.pop(0))

    def _on_wrong(self, found: Contradiction) -> None:
        self._persistent.allows_warm = False
        if self._speculator is not None:
            self._speculator.allows_warm = False
            self._speculator.drop("warm runs were wrong")
        differing = "; ".join(map(str, found.found[:3]))
        self._setting.note(
            f"warm tests are off for this repository: {found.warm.shown}: {differing}"
        )


def _why_not(setting: Setting) -> str:
    """Why nothing may run that was not asked for; empty when it may."""
    policy = setting.policy
    if not setting.speculates:
        return "it is switched off"
    if setting.persistent.kind != "bubblewrap":
        return f"commands of the {setting.persistent.kind} isolation could leave traces"
    if policy.allow_network or policy.proxy_socket is not None:
        return "commands can reach a network"
    if setting.workspace.layers is None:
        return "the workspace is a copy"
    if setting.has_others:
        return "warm commands of the project run beside the others"
    return "nothing may be changed" if policy.is_read_only else ""


@asynccontextmanager
async def open_workbench(setting: Setting) -> AsyncIterator[Workbench]:
    """A workbench over a started sandbox in which no command has run yet.

    Leaving ends all that goes on beside the sandbox.
    """
    async with _background() as group:
        bench = Workbench(setting, group)
        try:
            await bench.begin()
            yield bench
        finally:
            await bench.close()


@asynccontextmanager
async def _background() -> AsyncIterator[asyncio.TaskGroup]:
    """A group for tasks of the block. An error of the block comes out as it is, not in a group."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[asyncio.TaskGroup] = loop.create_future()
    stop = asyncio.Event()

    async def host() -> None:
        async with asyncio.TaskGroup() as group:
            ready.set_result(group)
            await stop.wait()

    hosting = asyncio.create_task(host(), name="beside the agent")
    try:
        yield await ready
    finally:
        stop.set()
        await hosting
