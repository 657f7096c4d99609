r"""Several candidates at one task: the first whose test command passes wins, the others are cancelled.

::

    the conversation -- fork, own lane --> candidate 0 -- fork of the workspace, own sandbox
                     \- fork, own lane --> candidate 1 -- ...
    first confirmed pass: others cancelled at once; the winner says its last word;
    its workspace and its conversation become those of the thread

With one at a time it is a retry: the next begins when the one before it has not passed.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from tightloop.agent import events as said
from tightloop.agent.steering import DELIVERED
from tightloop.agent.turn import Status, TurnResult
from tightloop.client.lanes import Lanes
from tightloop.client.transport import TransportError
from tightloop.harness.racing.bench import Adviser, CandidateBench, Shared
from tightloop.harness.racing.candidate import Candidate
from tightloop.harness.racing.goal import Goal, find_goal
from tightloop.harness.racing.places import Place, Places, open_places
from tightloop.harness.racing.referee import Referee
from tightloop.harness.racing.result import RacedResult, race_figures, usage_of, worst_of
from tightloop.harness.racing.tools import candidate_tools
from tightloop.harness.racing.tree_state import state_of
from tightloop.harness.thread import Thread
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import Item, Message, TextPart
from tightloop.sandbox.aside import FreshAside
from tightloop.sandbox.completion import to_its_end
from tightloop.sandbox.interface import SandboxError
from tightloop.trace.clock import now_ns

SEED = 1000
"""Of candidate 0 there is none; candidate k has this plus k."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How a contest goes. ``temperature`` is for all candidates but the first."""

    mode: str
    num: int
    at_once: int
    temperature: float


class Contest:
    """A ``modes.Mode``. One turn at a time; cancelling it leaves the conversation as it was before."""

    def __init__(self, thread: Thread, rules: Rules, places: Places, referee: Referee) -> None:
        self.name = rules.mode
        self.adviser: Adviser | None = None
        """Whose plan the candidates follow, if anybody's."""
        self._thread = thread
        self._rules = rules
        self._places = places
        self._referee = referee
        self._lanes = Lanes()
        self._refused: set[str] = set()  # options that the server takes from nobody
        self._turn: _Turn | None = None

    async def run_turn(self, prompt: str, **more: Any) -> TurnResult:
        """As ``Thread.run_turn``. Raises UsageError for a configuration that cannot be read."""
        return await self._thread.run_turn(prompt, runner=self._contend, **more)

    async def _contend(self, prompt: str, **more: Any) -> TurnResult:
        self._turn = _Turn(self, prompt, more)
        try:
            return await self._turn.run()
        finally:
            self._turn = None

    def steer(self, text: str) -> None:
        """A message for every candidate, also those to come; for the next turn when none runs."""
        if self._turn is None:
            self._thread.agent.steer(text)
        else:
            self._turn.steer(text)

    async def close(self) -> None:
        """Its connections are closed."""
        await self._lanes.close()

    def options_of(self, number: int) -> Mapping[str, Any]:
        """What makes a candidate differ from the others, as far as the server takes it."""
        if number == 0:
            return {}
        wanted = {"temperature": self._rules.temperature, "seed": SEED + number}
        return {name: value for name, value in wanted.items() if name not in self._refused}

    def refused(self, message: str, options: Mapping[str, Any]) -> bool:
        """Whether a refusal is about one of these options, which nobody is given from now on."""
        named = {name for name in options if name in message}
        self._refused |= named
        return bool(named)


class _Turn:
    """One turn of a contest."""

    def __init__(self, contest: Contest, prompt: str, more: Mapping[str, Any]) -> None:
        self._contest = contest
        self._thread = contest._thread
        self._rules = contest._rules
        self._prompt = prompt
        self._more = more
        self._candidates: list[Candidate] = []
        self._decided = asyncio.Event()
        self._winner: Candidate | None = None
        self._start_ns = now_ns()
        self._shared: Shared | None = None
        self._untaken = ""
        self._steers: list[str] = []

    @property
    def running(self) -> list[Candidate]:
        """Those that are at work."""
        return [one for one in self._candidates if not one.over.is_set()]

    def steer(self, text: str) -> None:
        """A message for every candidate."""
        self._steers.append(text)
        for one in self.running:
            if one.agent is not None:
                one.steers.append(one.agent.steer(text))

    def _pass_on_steers(self, chosen: Candidate | None) -> None:
        """What nobody has told the model goes out with the conversation's next turn."""
        waiting = self._steers
        if chosen is not None:
            waiting = [steer.text for steer in chosen.steers if steer.state != DELIVERED]
        for text in waiting:
            self._thread.agent.steer(text)

    async def run(self) -> TurnResult:
        thread = self._thread
        rules = thread.toolbox.guidance.texts
        goal = find_goal(thread.workspace.repository, self._prompt, rules)
        thread.listen(said.TurnStarted())
        budget = thread.agent.budget
        budget.begin_turn()
        ending: tuple[Candidate | None, Status, str] = (None, Status.CANCELLED, "interrupted")
        try:
            self._shared = Shared(goal, await state_of(thread.workspace))
            if (adviser := self._contest.adviser) is not None:
                self._prompt = await adviser.begin(self._prompt, goal)
            chosen = await self._contend()
            ending = self._ending(chosen)
        finally:
            budget.end_turn()
            result = self._result(goal, *ending)
            thread.agent.last_result = result
            thread.listen(result.closing_event())
            self._pass_on_steers(ending[0])
        return result

    async def _contend(self) -> Candidate | None:
        """The candidate whose work and conversation are the thread's now."""
        async with asyncio.TaskGroup() as group:
            try:
                self._fill(group)
                await self._decided.wait()
                chosen = await self._finish()
                if chosen is not None and not await self._taken(chosen):
                    chosen = None
            finally:
                for one in self._candidates:
                    one.released.set()
        return chosen

    # -- candidates

    def _fill(self, group: asyncio.TaskGroup) -> None:
        """As many as may be at work are."""
        if self._winner is not None:
            return
        while len(self._candidates) < self._rules.num and len(self.running) < self._rules.at_once:
            number, is_alone = len(self._candidates), self._rules.num == 1
            one = Candidate(number, self._thread.listen, is_alone=is_alone)
            self._candidates.append(one)
            one.task = group.create_task(self._run_one(one, group), name=f"candidate {one.number}")
        if not self.running:
            self._decided.set()

    async def _run_one(self, one: Candidate, group: asyncio.TaskGroup) -> None:
        try:
            async with self._contest._places.take() as place, self._at_work(one, place):
                await self._attempt(one, place)
                one.end()
                self._ended(one, group)
                await one.released.wait()
        except (SandboxError, OSError, ApiError, TransportError) as error:
            one.failure = one.failure or str(error)
        except asyncio.CancelledError:
            if not one.is_cancelled and not one.failure:
                raise  # the whole turn is
        finally:
            one.end()
            self._ended(one, group)

    @asynccontextmanager
    async def _at_work(self, one: Candidate, place: Place) -> AsyncIterator[None]:
        assert self._shared is not None
        bench = CandidateBench(
            place,
            self._shared,
            self._contest._referee,
            on_green=lambda: self._green(one),
            on_death=lambda reason: _give_up(one, reason),
            adviser=self._contest.adviser,
        )
        one.bench = bench
        try:
            yield
        finally:
            one.end()  # while its processes can still be counted
            await bench.close()

    async def _attempt(self, one: Candidate, place: Place) -> None:
        """The candidate's own turn; once more if the server refuses what makes it different."""
        assert one.bench is not None
        options = self._contest.options_of(one.number)
        while True:
            main = self._thread.agent
            session = await self._contest._lanes.fork(main.session, options)
            context = replace(
                main.context,
                workspace=place.workspace.path,
                sandbox=one.bench,
                on_patch=one.bench.follow,
                on_changed=one.bench.changed,
                shown_at=place.shown_at,
            )
            agent = main.fork(
                session,
                context,
                tools=candidate_tools(self._thread.toolbox.tools),
                listener=one.hear,
                overseer=one.bench,
            )
            one.begin(agent, session, one.bench)
            one.steers = [agent.steer(text) for text in self._steers]
            elsewhere = place.shown_at != self._thread.workspace.path
            if elsewhere:
                agent.tell(_place_note(f"In this attempt the workspace is {place.shown_at}."))
            one.result = await agent.run_turn(self._prompt, **self._more)
            if not (
                one.result.is_refused_at_once and self._contest.refused(one.result.message, options)
            ):
                break
            options = self._contest.options_of(one.number)
        if elsewhere:
            agent.tell(_place_note(f"The workspace is {self._thread.workspace.path} again."))
        await one.bench.look_back()

    # -- the decision

    def _green(self, one: Candidate) -> None:
        """A tree of it was confirmed to pass: the first one wins, all others end at once."""
        if one.green_ns is None:
            one.green_ns = now_ns()
        if self._winner is not None:
            return
        self._winner = one
        one.say("won", self._shared.goal.shown or "" if self._shared else "")
        for other in self._candidates:
            if other is not one and not other.over.is_set():
                _cancel(other)
        one.go_live()
        self._decided.set()

    def _ended(self, one: Candidate, group: asyncio.TaskGroup) -> None:
        """It has said its last word, or cannot go on. May be called twice."""
        if one.is_counted:
            return
        one.is_counted = True
        if one is not self._winner:
            one.say(one.outcome, one.figures(one.outcome).note)
        if self._winner is not None:
            return
        ended = [other for other in self._candidates if other.over.is_set()]
        best = max(ended, key=lambda other: other.rank)
        for other in ended:
            if other is not best:
                other.released.set()
        self._fill(group)

    async def _finish(self) -> Candidate | None:
        """The winner has said its last word; or the best of those that have failed."""
        if self._winner is not None:
            await self._winner.over.wait()
            return self._winner
        able = [
            one for one in self._candidates if one.agent is not None and not one.released.is_set()
        ]
        best = max(able, key=lambda one: one.rank, default=None)
        if best is not None:
            best.go_live()
        return best

    async def _taken(self, one: Candidate) -> bool:
        """Its work and its conversation are those of the thread; else nothing has changed."""
        try:
            await to_its_end(self._take(one))
        except (SandboxError, OSError) as error:
            self._untaken = f"the work of #{one.number} could not be taken: {error}"
        return not self._untaken

    async def _take(self, one: Candidate) -> None:
        assert one.bench is not None
        assert one.agent is not None
        confirmed = one.bench.confirmed
        source = one.bench.place.workspace
        if confirmed is not None and confirmed.kept is not None:
            source = confirmed.kept  # what came after the pass was not checked
        paths = await self._thread.workspace.take(source)
        self._thread.workshop.sandbox.refresh()
        self._thread.checks.changed(tuple(paths))
        self._thread.checkpoints.touch()
        self._thread.agent.take(one.agent)

    def _ending(self, chosen: Candidate | None) -> tuple[Candidate | None, Status, str]:
        if self._untaken:
            return None, Status.FAILED, self._untaken
        if self._winner is not None:
            return chosen, Status.COMPLETED, ""
        results = [one.result for one in self._candidates if one.result is not None]
        return chosen, worst_of(results), self._why_none(chosen)

    def _result(
        self, goal: Goal, chosen: Candidate | None, status: Status, message: str
    ) -> RacedResult:
        winner = self._winner if chosen is not None else None
        figures = [one.figures("won" if one is winner else one.outcome) for one in self._candidates]
        green_s = None
        if winner is not None and winner.green_ns is not None:
            green_s = (winner.green_ns - self._start_ns) / 1e9
        own = chosen.result if chosen is not None else None
        adviser = self._contest.adviser
        sessions = [one.session for one in self._candidates if one.session is not None]
        trips = [trip for session in sessions for trip in session.trips]
        results = [one.result for one in self._candidates if one.result is not None]
        return RacedResult(
            own.text if own is not None else "",
            status,
            own.spans if own is not None else [],
            own.round_trips if own is not None else [],
            self._start_ns,
            now_ns(),
            usage_of(figures),
            own.events if own is not None else [],
            message,
            bool(results) and all(one.is_refused_at_once for one in results),
            models=() if adviser is None else adviser.figures(trips),
            race=race_figures(
                self._rules.mode,
                self._rules.num,
                goal.shown,
                green_s,
                figures,
                None if chosen is None else chosen.number,
            ),
        )

    def _why_none(self, chosen: Candidate | None) -> str:
        assert self._shared is not None
        goal, all_of_them = self._shared.goal, self._candidates
        own = chosen.result if chosen is not None else None
        if len(all_of_them) == 1 and own is not None and own.message:
            return own.message
        ends = [one.figures(one.outcome) for one in all_of_them]
        listed = ", ".join(
            f"#{end.number} {end.outcome}" + (f" ({end.note})" if end.note else "") for end in ends
        )
        what = f"passes `{goal.shown}`" if goal.command else "has run a test command that passes"
        hint = "" if goal.command else "; name one as test.command in .tightloop.toml"
        kept = f"; #{chosen.number} is kept" if chosen is not None else ""
        return f"none of {len(all_of_them)} {what}: {listed}{kept}{hint}"


def _cancel(one: Candidate) -> None:
    one.is_cancelled = True
    if one.task is not None:
        one.task.cancel()


def _give_up(one: Candidate, reason: str) -> None:
    """Its sandbox has ended by itself: whatever it tries now fails."""
    if not one.failure and not one.is_cancelled:
        one.failure = f"its sandbox ended: {reason}"
        if one.task is not None:
            one.task.cancel()


def _place_note(text: str) -> Item:
    return Message("developer", (TextPart("input_text", text),))


@asynccontextmanager
async def open_contest(thread: Thread, rules: Rules) -> AsyncIterator[Contest]:
    """Ready for turns. Raises SandboxError when no isolation can be had."""
    workshop = thread.workshop
    async with AsyncExitStack() as stack:
        places = await open_places(stack, thread, rules.at_once)
        aside = FreshAside(workshop.policy, workshop.open_one, workshop.sandbox.kind)
        contest = Contest(thread, rules, places, Referee(aside))
        stack.push_async_callback(contest.close)
        yield contest
