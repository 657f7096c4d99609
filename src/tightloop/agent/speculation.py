"""Test commands run before they are asked for, in a copy of the workspace that is thrown away.

A try begins when a patch has changed the workspace::

    fork -> read its tree -> run -> what did it leave? -> kept in memory -> given out, or thrown away

Its result is given out only for exactly that command on exactly that tree, and only if the run has
left nothing behind but caches, which then go into the workspace as a real run's would. A command
that is really asked for never waits for a try that is expected to end later than a run of its own.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tightloop.sandbox.applying import apply_changes
from tightloop.sandbox.aside import Aside
from tightloop.sandbox.entries import Change, read_below
from tightloop.sandbox.interface import Command, CommandResult, Sandbox, SandboxError
from tightloop.sandbox.processes import cpu_s, give_way, take_turns
from tightloop.sandbox.tree_identity import Tree, changed_between, read_tree
from tightloop.sandbox.workspace import Workspace
from tightloop.trace.clock import Clock
from tightloop.trace.speculation import Try

Output = Callable[[bytes], None]

NUM_PLENTY_OF_CORES = 4
MAX_WASTED_IN_A_ROW = 4
_MAX_TRIED = 32
_MAX_CACHE_BYTES = 1 << 20
_MAX_SAID_BYTES = 4 << 20
_KEPT_CACHES = (".pytest_cache", ".hypothesis")  # later runs are told from these what to do
_READS_CACHE = ("--lf", "--last-failed", "--ff", "--failed-first", "--nf", "--sw", "--stepwise")
_OWN_FILES = "/pytest-of-"  # numbered by run: what lies there is the try's, and gone with it
AHEAD = "ahead"


@dataclass(slots=True)
class Attempt:
    """One try. ``tree`` and ``outcome`` come while it goes on; None when it came to nothing.

    ``is_leaving``: all that is left to do is to tidy up, which must not be cut short.
    """

    command: Command
    started_ns: int
    tree: "asyncio.Future[Tree | None]"
    outcome: "asyncio.Future[Outcome | None]"
    task: "asyncio.Task[None] | None" = None
    reason: str = ""
    ran_ns: int = 0
    ended_ns: int = 0
    asked_ns: int = 0
    cpu_s: float = 0.0
    is_used: bool = False
    is_leaving: bool = False
    is_recorded: bool = False
    pid: int | None = None
    num_said: int = 0
    pieces: list[bytes] = field(default_factory=list)
    listener: Output | None = None

    @property
    def is_too_long(self) -> bool:
        """Whether more was said than is kept for somebody who comes later."""
        return self.num_said > _MAX_SAID_BYTES

    def hear(self, piece: bytes) -> None:
        """More output."""
        self.num_said += len(piece)
        if not self.is_too_long:
            self.pieces.append(piece)
        if self.listener is not None:
            self.listener(piece)

    def stream_to(self, listener: Output | None) -> None:
        """What was said so far, and all that follows."""
        self.listener = listener
        if listener is not None:
            for piece in self.pieces:
                listener(piece)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished try that may be given out: what it came to, and caches it has written."""

    result: CommandResult
    caches: Sequence[Change]


class Speculator:
    """Tries of one conversation, one at a time.

    ``group`` owns the tasks; whoever leaves it calls ``close`` before. ``scratch`` tells what lies
    outside of the workspace. Each try is told to ``record`` once it is known whether it was used.
    """

    def __init__(
        self,
        workspace: Workspace,
        aside: Aside,
        scratch: "Scratch",
        clock: Clock,
        group: asyncio.TaskGroup,
        record: Callable[[Try], None],
        num_cores: int | None = None,
    ) -> None:
        self._workspace = workspace
        self._aside = aside
        self._scratch = scratch
        self._clock = clock
        self._group = group
        self._record = record
        cores = num_cores or len(os.sched_getaffinity(0))
        self._has_few_cores = cores < NUM_PLENTY_OF_CORES
        self._attempt: Attempt | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._tried: deque[tuple[Command, Tree]] = deque(maxlen=_MAX_TRIED)
        self._real_s: dict[str, float] = {}
        self._ahead_s: dict[str, float] = {}
        self._clean: set[str] = set()
        self._unclean: set[str] = set()
        self._num_wasted_in_a_row = 0
        self._last_pid: int | None = None
        self._is_closed = False
        self.allows_warm = True
        """Whether a try may use a warm process."""

    def start(self, command: Command) -> None:
        """The workspace has changed: whatever was tried is stale, and ``command`` is expected."""
        self.drop("the tree changed")
        if self._is_closed or not self._is_worth(command):
            return
        loop = asyncio.get_running_loop()
        attempt = Attempt(command, self._clock.now_ns(), loop.create_future(), loop.create_future())
        attempt.task = self._group.create_task(self._work(attempt), name="speculation")
        attempt.task.add_done_callback(lambda _task: self._on_end(attempt))
        self._attempt = attempt

    def _is_worth(self, command: Command) -> bool:
        if words_of(command) in self._unclean or self._num_wasted_in_a_row >= MAX_WASTED_IN_A_ROW:
            return False
        words = command.argv or (command.script or "").split()
        return not any(word.split("=")[0] in _READS_CACHE for word in words)

    async def take(self, command: Command, on_output: Output | None) -> CommandResult | None:
        """The result of a try of exactly this command on exactly the present tree, if there is one.

        None: run it. The try is over then, and does not stand in the way.
        """
        attempt = self._attempt
        if attempt is None:
            return None
        asked_ns = self._clock.now_ns()
        if attempt.command != command:
            self.drop("another command was asked for")
        elif not self._is_nearer(attempt, asked_ns):
            self.drop("a run of its own was expected to be faster")
        else:
            attempt.asked_ns = asked_ns
            outcome = await self._outcome(attempt, on_output)
            if outcome is not None:
                return await self._given_out(attempt, outcome)
            self.drop(attempt.reason or "the tree is another one")
        return None

    def _is_nearer(self, attempt: Attempt, now_ns: int) -> bool:
        """Whether the try is expected to end before a run that starts now."""
        if attempt.outcome.done():
            return True
        real_s = self._real_s.get(words_of(attempt.command))
        ahead_s = self._ahead_s.get(words_of(attempt.command), real_s)
        if real_s is None or ahead_s is None:
            return True
        return ahead_s - (now_ns - attempt.started_ns) / 1e9 <= real_s

    async def _outcome(self, attempt: Attempt, on_output: Output | None) -> Outcome | None:
        try:
            if not await self._scratch.is_untouched():
                attempt.reason = "earlier commands left files outside of the workspace"
                return None
            now = await asyncio.to_thread(read_tree, self._workspace)
        except (SandboxError, OSError) as error:
            attempt.reason = str(error)
            return None
        tree = await asyncio.shield(attempt.tree)
        if tree is None or not tree.is_same(now):
            return None
        if not tree.has_same_times(now):
            attempt.reason = "files were written again"  # make looks at that
            return None
        if attempt.pid is not None and not attempt.outcome.done():
            take_turns(attempt.pid)  # somebody waits for it now
        # Before anything is known of the command's habits its output is held back: should it turn
        # out to leave files, it has to be run again, and would be heard twice.
        if words_of(attempt.command) in self._clean and not attempt.is_too_long:
            attempt.stream_to(on_output)
            try:
                return await asyncio.shield(attempt.outcome)
            except asyncio.CancelledError:
                attempt.stream_to(None)  # it ends a little later, and nobody listens any more
                raise
        # Nor is it known how long it takes: a run of its own is put off by its own length at most.
        try:
            async with asyncio.timeout(self._real_s.get(words_of(attempt.command))):
                outcome = await asyncio.shield(attempt.outcome)
        except TimeoutError:
            attempt.reason = "it took longer than a run of its own"
            return None
        if outcome is not None:
            attempt.stream_to(on_output)
        return outcome

    async def _given_out(self, attempt: Attempt, outcome: Outcome) -> CommandResult | None:
        if outcome.caches:
            try:
                await asyncio.to_thread(
                    apply_changes, outcome.caches, self._workspace.path, force=True
                )
            except (SandboxError, OSError) as error:
                self.drop(f"its caches could not be kept: {error}")
                return None
        attempt.is_used = True
        self._num_wasted_in_a_row = 0
        self._attempt = None
        if attempt.task is not None and not attempt.task.done():
            self._ending.add(attempt.task)  # its place is being left
        self._settle(attempt)
        result = outcome.result
        return replace(result, how=f"{result.how} {AHEAD}")

    def note_real(self, command: Command, result: CommandResult) -> None:
        """A test command was run in the workspace."""
        self._real_s[words_of(command)] = (result.ended_ns - result.started_ns) / 1e9

    def yield_cores(self) -> None:
        """A command that was asked for starts: where cores are few, it gets them."""
        if self._has_few_cores and self._attempt is not None and not self._attempt.outcome.done():
            self.drop("another command needed the processor")

    def drop(self, reason: str) -> None:
        """The try is of no use any more. Returns at once; its processes end meanwhile."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        attempt.reason = attempt.reason or reason
        self._num_wasted_in_a_row += 1
        if attempt.task is not None and not attempt.task.done():
            if not attempt.is_leaving:
                attempt.task.cancel()
            self._ending.add(attempt.task)
        else:
            self._settle(attempt)

    async def quiet(self) -> None:
        """No process runs ahead."""
        current = self._attempt.task if self._attempt is not None else None
        running = {task for task in (current, *self._ending) if task is not None}
        if running:
            await asyncio.wait(running)

    async def finish_turn(self) -> None:
        """Nothing runs ahead any more, and every try of the turn has been told."""
        self.drop("nobody asked for it")
        self._num_wasted_in_a_row = 0
        if self._ending:
            await asyncio.wait(self._ending)

    async def close(self) -> None:
        """No more tries."""
        self._is_closed = True
        await self.finish_turn()

    def _settle(self, attempt: Attempt) -> None:
        """Tells of the try, once its use is known and its cost as well."""
        if attempt.is_recorded:
            return
        attempt.is_recorded = True
        command = attempt.command
        self._record(
            Try(
                command.script or " ".join(command.argv or ()),
                attempt.is_used,
                "" if attempt.is_used else attempt.reason,
                attempt.started_ns,
                attempt.ran_ns,
                attempt.ended_ns or self._clock.now_ns(),
                attempt.asked_ns,
                attempt.cpu_s,
            )
        )

    # -- one try

    async def _work(self, attempt: Attempt) -> None:
        try:
            await self._try(attempt)
        except (SandboxError, OSError) as error:
            attempt.reason = attempt.reason or str(error)

    def _on_end(self, attempt: Attempt) -> None:
        """However it ended, perhaps before it began: nobody waits for it any longer."""
        if attempt.task is not None:
            self._ending.discard(attempt.task)
        attempt.ended_ns = attempt.ended_ns or self._clock.now_ns()
        for future in (attempt.tree, attempt.outcome):
            if not future.done():
                future.set_result(None)
        if attempt is not self._attempt:
            self._settle(attempt)

    async def _try(self, attempt: Attempt) -> None:
        if not await self._scratch.is_untouched():
            attempt.reason = "earlier commands left files outside of the workspace"
            return
        fork = (await self._workspace.fork())[0]
        try:
            tree = await asyncio.to_thread(read_tree, fork)
            if self._was_tried(attempt.command, tree):
                attempt.reason = "this tree was tried before"
                return
            self._tried.append((attempt.command, tree))
            attempt.tree.set_result(tree)
            await self._run(attempt, fork, tree)
        finally:
            attempt.is_leaving = True
            await fork.discard()

    def _was_tried(self, command: Command, tree: Tree) -> bool:
        return any(command == known and tree.is_same(seen) for known, seen in self._tried)

    async def _run(self, attempt: Attempt, fork: Workspace, before: Tree) -> None:
        async with self._aside.on(fork) as sandbox:
            used_s = self._meter(sandbox.pid)
            try:
                attempt.pid = sandbox.pid
                if sandbox.pid is not None and not attempt.asked_ns:
                    give_way(sandbox.pid)
                outside = await sandbox.run(self._scratch.command)
                attempt.ran_ns = self._clock.now_ns()
                sandbox.allows_warm = self.allows_warm
                command = replace(attempt.command, is_reporting=True)
                result = await sandbox.run(command, attempt.hear)
                attempt.ended_ns = self._clock.now_ns()
                is_same_outside = (
                    outside.output == (await sandbox.run(self._scratch.command)).output
                )
                after = await asyncio.to_thread(read_tree, fork)
            finally:
                attempt.cpu_s = used_s()
            left = _what_it_left(before, after, is_same_outside=is_same_outside)
            self._learn(attempt, is_clean=not left)
            attempt.reason = left or _why_not_given_out(result, self._workspace.path)
            if attempt.is_too_long and attempt.listener is None:
                attempt.reason = attempt.reason or "it printed more than is kept"
            caches = [] if attempt.reason else self._kept(fork, before, after)
            attempt.is_leaving = True
            attempt.outcome.set_result(None if attempt.reason else Outcome(result, caches))

    def _meter(self, pid: int | None) -> Callable[[], float]:
        """Tells the processor time of the family since now, or of all its life if it is new."""
        if pid is None:
            return lambda: 0.0
        before_s = cpu_s(pid) if pid == self._last_pid else 0.0
        self._last_pid = pid
        return lambda: cpu_s(pid) - before_s

    def _learn(self, attempt: Attempt, *, is_clean: bool) -> None:
        command = words_of(attempt.command)
        self._ahead_s[command] = (attempt.ended_ns - attempt.started_ns) / 1e9
        (self._clean if is_clean else self._unclean).add(command)
        (self._unclean if is_clean else self._clean).discard(command)

    def _kept(self, fork: Workspace, before: Tree, after: Tree) -> list[Change]:
        """The caches which later runs are told from what to do."""
        changes, num_bytes = [], 0
        for path in changed_between(before.caches, after.caches):
            if path.endswith("/") or not set(path.split("/")).intersection(_KEPT_CACHES):
                continue
            entry = read_below(fork.path, path)
            num_bytes += len(entry.content) if entry is not None else 0
            if num_bytes > _MAX_CACHE_BYTES:
                return []
            with suppress(OSError):
                changes.append(Change(path, read_below(self._workspace.path, path), entry))
        return changes


def words_of(command: Command) -> str:
    """All of a command as a key."""
    return repr(command)


class Scratch:
    """What lies outside of the workspace in the session's own sandbox, where commands share it.

    ``command`` lists it. A try finds it empty, so that its result holds only while it is.
    """

    def __init__(self, sandbox: Sandbox, command: Command) -> None:
        self.command = command
        self._sandbox = sandbox
        self._untouched: str | None = None
        self._num_noted = 0
        self._num_seen = -1  # ``_is_untouched`` is of that time
        self._is_untouched = False

    async def remember(self) -> None:
        """No command has run yet: this is how it looks untouched."""
        listed = await self._sandbox.run(self.command)
        self._untouched = None if listed.is_truncated else listed.output
        self._is_untouched = self._untouched is not None
        self._num_seen = self._num_noted

    def note_command(self) -> None:
        """A command begins or has ended, who knows what it leaves."""
        self._num_noted += 1

    async def is_untouched(self) -> bool:
        """Whether it is as it was at first. Cheap while no command has run since it was asked."""
        if self._num_seen != self._num_noted and self._untouched is not None:
            asked_at = self._num_noted
            listed = await self._sandbox.run(self.command)
            self._is_untouched = listed.output == self._untouched
            self._num_seen = asked_at  # not if cut short, and not for a command that runs meanwhile
        return self._is_untouched


def _what_it_left(before: Tree, after: Tree, *, is_same_outside: bool) -> str:
    """What a real run would have left for later commands; empty for nothing."""
    left = changed_between(before.entries, after.entries)
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        return f"it changed {left[0]}{more}"
    return "" if is_same_outside else "it left files outside of the workspace"


def _why_not_given_out(result: CommandResult, workspace: Path) -> str:
    if _OWN_FILES in result.output.replace(str(workspace), ""):
        return "its output names temporary files of its own"
    if result.timed_out or result.exit_code < 0:
        return "it was killed"
    return ""
