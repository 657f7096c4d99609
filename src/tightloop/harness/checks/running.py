"""Runs checks beside a conversation, never in its way.

::

    patch -> the copy gets the tree -> each check whose paths were touched -> what is new -> news

One copy of the workspace lives as long as the conversation, in a sandbox of its own at the lowest
priority: tools find their caches there, and what a check writes is gone or ignored. A patch that comes
while checks run makes them stale, and they are cut short; but a first result, which later ones are
compared with, is always waited for. The copy never shows a state that is newer than the one compared with.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from tightloop.agent.overseer import NoOverseer
from tightloop.agent.terminal.printable import printable
from tightloop.harness.checks.facts import Findings, News
from tightloop.harness.checks.formats import facts_in
from tightloop.harness.checks.settings import AFTER_TURN, Check
from tightloop.sandbox.aside import FreshAside, Open
from tightloop.sandbox.interface import Command, CommandResult, Policy, SandboxError
from tightloop.sandbox.processes import cpu_s, give_way, take_turns
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.workspace import Workspace
from tightloop.trace.check_runs import CheckFigures, CheckRun, sum_up
from tightloop.trace.clock import Clock, MonotonicClock
from tightloop.trace.speculation import Try

_NOT_STARTED = (126, 127)
_STALE, _CLOSED = "a later change made it stale", "the conversation ended"


@dataclass(frozen=True, slots=True)
class CheckSetting:
    """What checks run on and with. ``policy`` is that of the conversation's own sandbox, of the given
    ``kind``; ``open_one`` opens one like it. ``ready`` is waited for before the first run.

    ``note`` takes lines for a person.
    """

    workspace: Workspace
    policy: Policy
    kind: str
    open_one: Open
    note: Callable[[str], None] = lambda _text: None
    ready: Callable[[], Awaitable[object]] | None = None
    clock: Clock = field(default_factory=MonotonicClock)


@dataclass(slots=True)
class _Copy:
    """Where checks run."""

    fork: Workspace
    sandbox: PersistentSandbox


class Checks(NoOverseer):
    """The checks of one conversation, an ``Overseer`` of it; see ``open_checks``."""

    def __init__(self, checks: Sequence[Check], setting: CheckSetting) -> None:
        self.off = _why_not(setting) if checks else "none are configured"
        """Why none run; empty when they do."""
        self._checks = list(checks) if not self.off else []
        self._setting = setting
        self._findings = Findings()
        self._due: set[str] = set()
        self._at_end: set[str] = set()  # due when the turn ends
        self._quiet: set[str] = set()  # their next result is a baseline
        self._is_copy_old = False
        self._broken: dict[str, str] = {}
        self._current = ""
        self._runs: list[CheckRun] = []  # since the turn began
        self._record: Callable[[CheckRun], None] | None = None
        self._news: list[News] = []
        self._before_turn = CheckFigures()
        self._is_in_turn = False
        self._is_closing = False
        self._reason = _STALE
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._started = asyncio.Event()
        self._ended = asyncio.Event()
        self._run: asyncio.Task[CommandResult] | None = None
        self._work: asyncio.Task[None] | None = None
        self._fork: Workspace | None = None
        self._copy: _Copy | None = None
        self._stack = AsyncExitStack()

    @property
    def state(self) -> str:
        """A few words for a status line; empty when there are no checks."""
        words = []
        for check in self._checks:
            if check.name in self._broken:
                words.append(f"{check.name} off")
            elif check.name in {*self._due, *self._quiet, self._current}:
                words.append(f"{check.name} running")
            elif self._findings.has_baseline(check.name):
                words.append(f"{check.name} {self._findings.num_open(check.name) or 'ok'}")
        return ", ".join(words)

    @property
    def figures(self) -> CheckFigures:
        """All runs so far."""
        return self._before_turn + sum_up(self._runs)

    async def begin(self) -> None:
        """The tree as it is now is what the first results are about; they are made in the background."""
        if not self._checks:
            return
        try:
            self._fork = (await self._setting.workspace.fork())[0]
        except (SandboxError, OSError) as error:
            self._turn_off(f"no copy of the workspace: {error}")
            return
        self._stack.push_async_callback(self._fork.discard)
        self._quiet = {check.name for check in self._checks}
        self._ask_for(set())
        self._work = asyncio.create_task(self._go_on(), name="checks")

    async def close(self) -> None:
        """Nothing runs any more, and the copy is gone. May be called twice."""
        self._is_closing = True
        self._reason = _CLOSED
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])
        await self._stack.aclose()

    async def until_running(self, name: str) -> None:
        """The check runs at this moment. For ever, if it never does."""
        while self._current != name:
            self._started.clear()
            await self._started.wait()

    async def quiet(self) -> None:
        """Nothing is due, and nothing runs."""
        await self._idle.wait()

    def attach(self, record: Callable[[CheckRun], None] | None) -> None:
        """Hand each run to ``record``, also those of this turn that have ended already; None for nobody."""
        self._record = record
        if record is not None:
            for run in self._runs:
                record(run)

    # -- told by others; all of these return at once

    def changed(self, paths: Sequence[str]) -> None:
        """A patch has changed these files."""
        about = [check for check in self._checks if any(map(check.is_about, paths))]
        self._at_end |= {check.name for check in about if check.after == AFTER_TURN}
        self._ask_for({check.name for check in about if check.after != AFTER_TURN})

    def renewed(self) -> None:
        """Files were changed by somebody else: what is found next is nobody's news."""
        self._due.clear()
        self._quiet = {check.name for check in self._checks}
        self._is_copy_old = True
        self._ask_for(set())
        self._cut()

    def _ask_for(self, names: set[str]) -> None:
        """These are due now, beside what is to be compared with."""
        self._due |= names - self._broken.keys()
        if self._work is not None and self._work.done():
            return
        if self._due or self._quiet - self._broken.keys():
            self._idle.clear()
            self._wake.set()
        if names and self._current not in self._quiet:
            self._cut()

    def _cut(self) -> None:
        if self._run is not None:
            self._reason = _STALE
            self._run.cancel()

    # -- the overseer

    def begin_turn(self, prompt: str) -> None:
        """See ``Overseer.begin_turn``."""
        self._is_in_turn = True
        self._before_turn, self._runs = self.figures, []

    def take_news(self) -> list[str]:
        """See ``Overseer.take_news``."""
        news, self._news = self._news, []
        return [one.as_text() for one in news]

    async def objections(self) -> list[str] | None:
        """See ``Overseer.objections``: what is known by now, and what the checks for the turn's end say."""
        late = self._at_end - self._broken.keys()
        self._at_end = set()
        if late:
            if self._copy is not None and self._copy.sandbox.pid is not None:
                take_turns(self._copy.sandbox.pid)  # somebody waits for it now
            self._ask_for(late)
            while late & {*self._due, *self._quiet, self._current} and not self._idle.is_set():
                self._ended.clear()
                await self._ended.wait()
            if self._copy is not None and self._copy.sandbox.pid is not None:
                give_way(self._copy.sandbox.pid)
        if any(news.new for news in self._news):
            return self.take_news()
        return [] if late else None  # what is resolved speaks against nothing, and can wait

    async def finish_turn(self) -> list[Try]:
        """See ``Overseer.finish_turn``; what is under way goes on for the next turn."""
        self._is_in_turn = False
        return []

    def check_figures(self) -> CheckFigures | None:
        """The runs that have ended since the turn began; None without checks."""
        return sum_up(self._runs) if self._runs else None

    # -- the work

    async def _go_on(self) -> None:
        try:
            if self._setting.ready is not None:
                await self._setting.ready()
            self._copy = await self._open_copy()
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._round()
                if not self._wake.is_set():
                    self._idle.set()
        except (SandboxError, OSError) as error:
            self._turn_off(str(error))
        finally:
            self._current = ""
            self._idle.set()
            self._ended.set()

    async def _open_copy(self) -> _Copy:
        setting, fork = self._setting, self._fork
        assert fork is not None, "begin has made it"
        policy = replace(setting.policy, allow_network=False, proxy_socket=None)
        aside = FreshAside(policy, setting.open_one, setting.kind)
        sandbox = await self._stack.enter_async_context(aside.on(fork))
        if sandbox.pid is not None:
            give_way(sandbox.pid)
        return _Copy(fork, sandbox)

    async def _round(self) -> None:
        """What later results are compared with, on the tree before any patch; without such, what is due,
        on the tree as it is now."""
        copy = self._copy
        assert copy is not None, "opened before the first round"
        checks = [check for check in self._checks if check.name not in self._broken]
        first = [check for check in checks if check.name in self._quiet]
        if self._is_copy_old or not first:
            self._is_copy_old = False
            await copy.fork.mirror(self._setting.workspace)
        for check in first:
            if not await self._run_one(check, copy):
                return  # the tree is another one, and so is what is to be compared with
            self._quiet.discard(check.name)
        if first:
            if self._due:
                self._wake.set()
            return
        for check in sorted(checks, key=lambda check: check.after != AFTER_TURN):
            if self._wake.is_set():
                return  # a newer tree is waiting
            if check.name in self._due:
                self._due.discard(check.name)
                if not await self._run_one(check, copy):
                    self._due.add(check.name)

    async def _run_one(self, check: Check, copy: _Copy) -> bool:
        """Whether the check has come to its end."""
        self._current = check.name
        pid = copy.sandbox.pid
        before_s = cpu_s(pid) if pid is not None else 0.0
        started_ns = self._setting.clock.now_ns()
        command = Command(script=check.command, timeout_s=check.timeout_s)
        self._run = asyncio.create_task(copy.sandbox.run(command), name=f"check {check.name}")
        self._started.set()
        result, reason, news = None, "the sandbox has ended", None
        try:
            await asyncio.wait([self._run])
            if self._run.cancelled():
                reason = self._reason
            else:
                result = self._run.result()
                reason, news = self._take(check, result)
        except asyncio.CancelledError:
            self._run.cancel()
            await asyncio.wait([self._run])
            reason = self._reason
            raise
        finally:
            self._run, self._current = None, ""
            used_s = max(0.0, cpu_s(pid) - before_s) if pid is not None else 0.0
            counts = (len(news.new), len(news.resolved)) if news is not None else (0, 0)
            now_ns = self._setting.clock.now_ns()
            self._note_run(CheckRun(check.name, reason, started_ns, now_ns, used_s, *counts))
            self._ended.set()
        return result is not None

    def _take(self, check: Check, result: CommandResult) -> tuple[str, News | None]:
        """Why the result says nothing of the tree, else what is new in it."""
        reason = ""
        if result.timed_out:
            reason = f"it took longer than timeout_s = {check.timeout_s:g}"
        elif result.exit_code < 0:
            reason = f"it was ended by signal {-result.exit_code}"
        elif result.exit_code in _NOT_STARTED:
            reason = f"it cannot be run: {result.output.strip()[-200:]}"
            self._broken[check.name] = reason
        if reason:
            self._setting.note(printable(f"check {check.name}: {reason}"))
            return reason, None
        facts = facts_in(result.output, result.exit_code, str(self._setting.workspace.path))
        if check.name in self._quiet:
            self._findings.set_baseline(check.name, facts)
            return "", None
        news = self._findings.take(check.name, facts, is_whole=not result.is_truncated)
        if news is not None:
            self._news.append(news)
            if not self._is_in_turn:  # in a turn the model is told, and a person sees that
                self._setting.note(printable(news.as_text()))
        return "", news

    def _note_run(self, run: CheckRun) -> None:
        self._runs.append(run)
        if self._record is not None:
            self._record(run)

    def _turn_off(self, reason: str) -> None:
        if not self._is_closing:
            self.off, self._checks = reason, []
            self._due.clear()
            self._setting.note(printable(f"checks are off: {reason}"))


def _why_not(setting: CheckSetting) -> str:
    """Why nothing may run that nobody asked for; empty when it may."""
    if setting.policy.is_read_only:
        return "nothing may be changed"
    if setting.kind != "bubblewrap":
        return f"in the {setting.kind} isolation they could leave traces; they need bubblewrap"
    if setting.workspace.layers is None:
        return f"the workspace is a copy, and each run needs one more: {setting.workspace.reason}"
    return ""


@asynccontextmanager
async def open_checks(checks: Sequence[Check], setting: CheckSetting) -> AsyncIterator[Checks]:
    """Checks over a workspace in which nothing was changed yet. Leaving ends them."""
    running = Checks(checks, setting)
    if checks and running.off:
        setting.note(printable(f"checks are off: {running.off}"))
    try:
        await running.begin()
        yield running
    finally:
        with suppress(SandboxError):
            await running.close()
