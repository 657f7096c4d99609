"""Warm verdicts checked by a fresh interpreter, in a copy of the workspace.

A sample of them while the model goes on, and what holds for the final tree before the turn is
called a success. When a fresh run says otherwise, the model is told what that one said, and warm runs are
off for the repository from then on.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tightloop.agent.events import CHECK
from tightloop.agent.speculation import words_of
from tightloop.agent.tools.output import shorten_output
from tightloop.sandbox.aside import Aside
from tightloop.sandbox.audited import compare, is_warm, run_cold, write_logs
from tightloop.sandbox.interface import Command, CommandResult, SandboxError
from tightloop.sandbox.processes import take_turns
from tightloop.sandbox.tree_identity import Tree, read_tree
from tightloop.sandbox.verdicts import AuditSample, Difference, ShutOff, Verdict, read_report
from tightloop.sandbox.workspace import Workspace

MAX_FINAL = 3
"""So many selections at most are run again before a turn is called a success: the last ones."""

_NOT_STARTED = (126, 127)
_MAX_KNOWN = 32  # verdicts, each with its output and its tree
_CHECKED_ELSEWHERE = "warm-command-"  # a project's own daemons, see sandbox.warm_commands


@dataclass(frozen=True, slots=True)
class Warm:
    """One warm verdict. ``tree`` is what it ran on, None where that is not known; ``age`` counts
    the changes that the agent had made."""

    command: Command
    result: CommandResult
    tree: Tree | None
    age: int

    @property
    def key(self) -> tuple[str, ...]:
        """What it is called in the sample."""
        return (self.command.cwd, self.shown)

    @property
    def shown(self) -> str:
        """The command on a line."""
        return self.command.script or " ".join(self.command.argv or ())


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A fresh run says otherwise. ``is_wrong``: warm runs were wrong, on the same tree and
    whenever it was tried; else the tree has changed since, or the tests are unstable."""

    warm: Warm
    cold: CommandResult
    found: tuple[Difference, ...]
    is_wrong: bool
    is_same_tree: bool

    def as_text(self) -> str:
        """What the model is told."""
        if self.is_wrong:
            why = "its last verdict came from a process that had been kept warm, and was wrong"
        elif self.is_same_tree:
            why = "it ends differently from run to run"
        else:
            why = "files have changed since it was run last"
        output = shorten_output(self.cold.output)
        differing = "\n".join(f"- {one.what}: now {one.cold}" for one in self.found[:10])
        return (
            f"{CHECK} `{self.warm.shown}` was run once more in a fresh "
            f"process, because {why}. The fresh run counts:\n\n{output}\n"
            f"Process exited with code {self.cold.exit_code}\n\nDifferent from before:\n{differing}"
        )


class Auditor:
    """Checks the warm verdicts of one conversation. ``on_wrong`` is called once warm runs are off."""

    def __init__(
        self,
        workspace: Workspace,
        aside: Aside,
        shut_off: ShutOff,
        log_directory: Path,
        group: asyncio.TaskGroup,
        on_wrong: Callable[[Contradiction], None],
    ) -> None:
        self._workspace = workspace
        self._aside = aside
        self._shut_off = shut_off
        self._log_directory = log_directory
        self._group = group
        self._on_wrong = on_wrong
        self._sample = AuditSample()
        self._latest: dict[str, Warm] = {}
        self._checked: deque[Warm] = deque(maxlen=_MAX_KNOWN)
        self._running: dict[asyncio.Task[None], Warm] = {}
        self._told: deque[Contradiction] = deque(maxlen=_MAX_KNOWN)
        self._pids: set[int] = set()
        self._news: list[Contradiction] = []
        self.notes: list[str] = []
        """Checks that came to nothing, and why."""

    def note(self, command: Command, result: CommandResult, tree: Tree | None, age: int) -> None:
        """A test command has ended."""
        self._latest.pop(words_of(command), None)
        if not is_warm(result) or result.how.startswith(_CHECKED_ELSEWHERE):
            return
        warm = self._latest[words_of(command)] = Warm(command, result, tree, age)
        if len(self._latest) > _MAX_KNOWN:
            del self._latest[next(iter(self._latest))]
        if tree is None:
            return  # by the time of a check nobody could tell whether the tree has moved on
        if self._sample.is_due(warm.key, Verdict(result.exit_code, read_report(result.report))):
            task = self._group.create_task(self._check_aside(warm), name="audit")
            self._running[task] = warm
            task.add_done_callback(lambda done: self._running.pop(done, None))

    def take_news(self) -> list[Contradiction]:
        """What the checks in the background found since it was asked last."""
        news, self._news = self._news, []
        return news

    async def final(self, age: int) -> list[Contradiction] | None:
        """What speaks against the verdicts that the model ends its turn with; None without any.

        Waits for checks under way, and makes those that are missing.
        """
        if not self._latest:
            return self.take_news() or None
        now = await asyncio.to_thread(tree_of, self._workspace)
        latest = [warm for warm in self._latest.values() if _holds(warm, now, age)]
        for warm in (latest or list(self._latest.values())[-1:])[-MAX_FINAL:]:
            await self._until_checked(warm)
            is_checked = any(warm is one for one in self._checked) and _holds(warm, now, age)
            if is_checked or any(warm is one.warm for one in self._told):
                continue  # the model may end its turn although it was told
            await self._check_aside(warm, final_age=age)
        return self.take_news()

    async def quiet(self) -> None:
        """No check is under way."""
        if self._running:
            await asyncio.wait(list(self._running))

    async def finish_turn(self) -> None:
        """Nothing runs any more."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _until_checked(self, warm: Warm) -> None:
        under_way = [task for task, its in self._running.items() if its is warm]
        if under_way:
            for pid in self._pids:
                take_turns(pid)  # somebody waits for it now
            await asyncio.wait(under_way)

    async def _check_aside(self, warm: Warm, *, final_age: int | None = None) -> None:
        try:
            found = await self._check(warm, final_age)
        except (SandboxError, OSError) as error:
            self.notes.append(f"{warm.shown}: not checked: {error}")
            return
        if found is None:
            return
        if found.is_wrong:
            logs = write_logs(self._log_directory, warm.result, found.cold)
            self._shut_off.turn_off(
                self._workspace.repository, found.found, str(logs[0]), str(logs[1])
            )
            self._on_wrong(found)
        self._news.append(found)
        self._told.append(found)

    async def _check(self, warm: Warm, final_age: int | None) -> Contradiction | None:
        """Runs cold, and once more where that differs; None when there is nothing to tell.

        ``final_age`` is that of the tree when nothing changes it any more.
        """
        is_final = final_age is not None
        fork = (await self._workspace.fork())[0]
        try:
            tree = await asyncio.to_thread(tree_of, fork)
            is_same_tree = _holds(warm, tree, final_age)
            if not is_same_tree and not is_final:
                self._sample.again(warm.key)  # the tree has moved on: the next one is checked
                return None
            cold = await self._cold(warm.command, fork, is_final=is_final)
            self._checked.append(warm)
            found = compare(warm.result, cold)
            if not found:
                return None
            if not is_same_tree:
                is_worse = cold.exit_code != 0 and warm.result.exit_code == 0
                return Contradiction(warm, cold, found, False, False) if is_worse else None
            # A test that two fresh runs tell differently proves nothing against warm ones.
            again = await self._cold(warm.command, fork, is_final=is_final)
        finally:
            await fork.discard()
        still = {one.what for one in compare(warm.result, again)}
        is_wrong = bool(still.intersection(one.what for one in found))
        return Contradiction(warm, cold, found, is_wrong, True)

    async def _cold(self, command: Command, fork: Workspace, *, is_final: bool) -> CommandResult:
        async with self._aside.on(fork) as sandbox:
            pid = sandbox.pid
            if pid is not None and not is_final:
                self._pids.add(pid)
            try:
                cold = await run_cold(
                    sandbox,
                    command,
                    sandbox.workspace,
                    sandbox.environment,
                    is_background=not is_final,
                )
            finally:
                self._pids.discard(pid or 0)
        if cold.result.timed_out or cold.result.exit_code < 0:
            raise SandboxError("the fresh run was ended")
        if cold.result.exit_code in _NOT_STARTED and not cold.result.report:
            raise SandboxError(f"the fresh run did not start: {cold.result.output.strip()[-200:]}")
        return cold.result


def cold_text(command: Command, cold: CommandResult) -> str:
    """What the model is told of a warm command that has passed, and fails when it is cold."""
    line = command.script or " ".join(command.argv or ())
    return (
        f"{CHECK} `{line}` was run once more without what keeps it warm, and does not "
        f"pass. The new run counts:\n\n{shorten_output(cold.output)}\n"
        f"Process exited with code {cold.exit_code}"
    )


def tree_of(workspace: Workspace) -> Tree | None:
    """What the workspace holds, None when that cannot be told at a reasonable cost."""
    try:
        return read_tree(workspace)
    except (SandboxError, OSError):
        return None


def _holds(warm: Warm, now: Tree | None, age: int | None) -> bool:
    """Whether the verdict is about the tree as it is."""
    if warm.tree is None or now is None:
        return warm.age == age
    return warm.tree.is_same(now)
