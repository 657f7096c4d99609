"""What one candidate's commands run in, and who tells whether it has got there.

To its tools it is a sandbox, to its loop an overseer. Nothing runs ahead here and no sample is
checked: other candidates want the cores. What is checked is a pass that would win, and the last word.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tightloop.agent.events import CHECK, ModelFigures
from tightloop.agent.patch.apply import Impossible, StreamEvent
from tightloop.agent.patch.operations import FileSeen, PatchEnded
from tightloop.agent.tools.exec_command import is_test_run
from tightloop.agent.tools.output import shorten_output
from tightloop.harness.racing.goal import Goal, is_pass, is_same_command, line_of
from tightloop.harness.racing.places import Place
from tightloop.harness.racing.referee import Confirmation, Referee
from tightloop.harness.racing.tree_state import State, is_same, state_of
from tightloop.sandbox.audited import is_warm
from tightloop.sandbox.interface import Command, CommandResult, SandboxError
from tightloop.trace.latency import RoundTrip
from tightloop.trace.speculation import Try

MAX_TOLD = 2
"""So often a candidate that calls itself done is told that the tests fail; then it has lost."""

Output = Callable[[bytes], None]


@dataclass(slots=True)
class Shared:
    """What all candidates of a race know: they begin with one tree.

    ``is_red`` once the goal's command was seen to fail on it: only then a pass means something
    before a candidate has said its last word.
    """

    goal: Goal
    start: State | None
    is_red: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """A test command that the candidate has run; ``state`` is what it ran on."""

    command: Command
    result: CommandResult
    state: State | None


class Adviser(Protocol):
    """Whoever is asked how to go about a turn, and again after failures; see ``planning``."""

    async def begin(self, prompt: str, goal: Goal) -> str:
        """What the candidates are asked."""

    async def advise(self, bench: "CandidateBench", *, is_last: bool) -> str:
        """A candidate has seen its goal fail, or with ``is_last`` has said its last word without
        having got there; what it is told, or an empty text."""

    def figures(self, executors: Sequence[RoundTrip]) -> tuple[ModelFigures, ...]:
        """What every model of the turn took; the candidates' round trips are given."""


class CandidateBench:
    """A ``Sandbox`` and an ``Overseer`` over a place. ``on_green`` is called at each confirmed pass."""

    def __init__(
        self,
        place: Place,
        shared: Shared,
        referee: Referee,
        *,
        on_green: Callable[[], None],
        on_death: Callable[[str], None],
        adviser: Adviser | None = None,
    ) -> None:
        self.kind = place.sandbox.kind
        self.place = place
        self.last: Run | None = None
        """The last test command, whichever."""
        self.last_goal: Run | None = None
        """The last run of the goal's command."""
        self.num_failures = 0
        """Failing runs of the goal's command on changed trees, in a row."""
        self.confirmed: Confirmation | None = None
        self.has_changed = False
        """Whether anything differs from what all began with, once it is over."""
        self.note = ""
        """Why a check could not be made."""
        self.check_cpu_s = 0.0
        self._shared = shared
        self._referee = referee
        self._on_green = on_green
        self._on_death = on_death
        self._adviser = adviser
        self._news: list[str] = []
        self._checking: asyncio.Task[None] | None = None
        self._num_told = 0
        self._is_patch_known = False

    @property
    def command(self) -> Command | None:
        """What counts for this candidate: the goal, or what it ran last itself."""
        if self._shared.goal.command is not None:
            return self._shared.goal.command
        return self.last.command if self.last is not None else None

    async def start(self) -> None:
        """Its place has been started."""

    async def look_back(self) -> None:
        """It is over: see what it has changed."""
        self.has_changed = not is_same(await state_of(self.place.workspace), self._shared.start)

    async def close(self) -> None:
        """Checks under way are ended; the fork that was kept is gone."""
        await self._end_check()
        confirmed = self.confirmed
        if confirmed is not None and confirmed.kept is not None:
            await confirmed.kept.discard()

    # -- for the tools

    async def run(self, command: Command, on_output: Output | None = None) -> CommandResult:
        """See ``Sandbox.run``."""
        line = line_of(command)
        is_test = is_test_run(line) or self._shared.goal.is_it(command)
        state = await state_of(self.place.workspace) if is_test else None
        try:
            result = await self.place.sandbox.run(command, on_output)
        except SandboxError as error:
            if not self.place.sandbox.is_alive:
                self._on_death(str(error))
            raise
        if is_test:
            self._note(Run(command, result, state))
        return result

    def follow(self, event: StreamEvent) -> None:
        """More is known of a patch that streams in; for ``ToolContext.on_patch``."""
        if isinstance(event, FileSeen) and not self._is_patch_known:
            self._is_patch_known = True
            self.place.sandbox.refresh()
        elif isinstance(event, PatchEnded | Impossible):
            self._is_patch_known = False

    def changed(self, _paths: tuple[str, ...]) -> None:
        """A patch has changed files; for ``ToolContext.on_changed``."""
        self._is_patch_known = False
        self.place.sandbox.refresh()

    # -- for the loop

    def begin_turn(self, prompt: str) -> None:
        """See ``Overseer.begin_turn``."""

    def take_news(self) -> list[str]:
        """See ``Overseer.take_news``."""
        news, self._news = self._news, []
        return news

    async def objections(self) -> list[str] | None:
        """See ``Overseer.objections``: the last word counts once the command passes on the final tree."""
        if self._checking is not None:
            await asyncio.wait([self._checking])
        if self._news:
            return self.take_news()
        state = await state_of(self.place.workspace)
        command = self.command
        if command is None or self.holds(state):
            return None
        if is_same(state, self._shared.start):
            return await self._advised()  # who has changed nothing cannot win
        result = self._seen_to_fail(command, state)
        is_news = result is None
        if result is None:
            result = await self._confirm(command)
        if result is None or is_pass(result):
            return [] if result is not None else None
        if (advised := await self._advised()) is not None:
            return advised
        if not is_news or self._num_told >= MAX_TOLD:
            return None  # it knows, and has nothing more to try
        self._num_told += 1
        return [_objection(command, result)]

    async def finish_turn(self) -> list[Try]:
        """See ``Overseer.finish_turn``."""
        await self._end_check()
        return []

    def check_figures(self) -> None:
        """See ``Overseer.check_figures``: no continuous checks run in candidates."""

    # -- what counts

    def holds(self, state: State | None) -> bool:
        """Whether just this tree was seen to pass, by a fresh process."""
        return self.confirmed is not None and is_same(self.confirmed.state, state)

    def _note(self, run: Run) -> None:
        self.last = run
        if not self._shared.goal.is_it(run.command):
            return
        self.last_goal = run
        is_start = is_same(run.state, self._shared.start)
        if is_pass(run.result):
            self.num_failures = 0
            if self._shared.is_red and not is_start and not self.holds(run.state):
                self._begin(self._check(run))
            return
        if is_start:
            self._shared.is_red = True
        else:
            self.num_failures += 1
            if self._adviser is not None:
                self._begin(self._ask_beside())

    def _seen_to_fail(self, command: Command, state: State | None) -> CommandResult | None:
        """How its own last run of the command failed, if that was on this very tree."""
        last = self.last
        if last is None or not is_same_command(last.command, command) or is_pass(last.result):
            return None
        return last.result if is_same(last.state, state) else None

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """One thing at a time goes on beside the model."""
        if self._checking is not None and not self._checking.done():
            work.close()
            return
        self._checking = asyncio.create_task(work, name="beside a candidate")

    async def _check(self, run: Run) -> None:
        passed = None if is_warm(run.result) else run.result
        result = await self._confirm(run.command, run.state, passed)
        if result is not None and not is_pass(result):
            self._news.append(_objection(run.command, result))

    async def _confirm(
        self, command: Command, expected: State | None = None, passed: CommandResult | None = None
    ) -> CommandResult | None:
        """The verdict of a fresh process; None when there is none, or about another tree."""
        try:
            found = await self._referee.confirm(self.place.workspace, command, passed=passed)
        except (SandboxError, OSError) as error:
            self.note = f"{line_of(command)}: not checked: {error}"
            return None
        self.check_cpu_s += found.cpu_s
        if expected is not None and not is_same(found.state, expected):
            if found.kept is not None:
                await found.kept.discard()  # it has moved on; so does the verdict
            return None
        if found.is_pass:
            before, self.confirmed = self.confirmed, found
            if before is not None and before.kept is not None:
                await before.kept.discard()
            self._on_green()
        return found.result

    async def _advised(self, *, is_last: bool = True) -> list[str] | None:
        if self._adviser is None:
            return None
        text = await self._adviser.advise(self, is_last=is_last)
        return [text] if text else None

    async def _ask_beside(self) -> None:
        self._news += await self._advised(is_last=False) or []

    async def _end_check(self) -> None:
        checking, self._checking = self._checking, None
        if checking is not None:
            checking.cancel()
            await asyncio.wait([checking])


def _objection(command: Command, result: CommandResult) -> str:
    end = "was killed at its deadline" if result.timed_out else f"exited with {result.exit_code}"
    return (
        f"{CHECK} `{line_of(command)}` was run in a fresh process on the files as they are. It does "
        f"not pass, so the task is not done yet:\n\n{shorten_output(result.output)}\nProcess {end}"
    )
