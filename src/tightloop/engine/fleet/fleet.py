"""An engine made of engines: several models at once, and several backends behind one model's name.

Every backend has its own engine with its own thread or connections; nothing is shared between them.
The fleet picks one for each response (``choosing``), goes on to the next where one fails before it has
said anything (``route``), and leaves alone for a while what keeps failing (``breaker``).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from tightloop.engine.fleet.choosing import choose
from tightloop.engine.fleet.groups import (
    ModelGroup,
    check_groups,
    check_labels,
    describe,
    name_tiers,
    why_none_may_be_asked,
    why_none_works,
)
from tightloop.engine.fleet.member import Member
from tightloop.engine.fleet.policy import Ask, Decision, Policy, Standing, parse_policy
from tightloop.engine.fleet.route import Route, RouteContext
from tightloop.engine.fleet.sessions import Session, SessionBook
from tightloop.engine.interface import (
    EngineError,
    Generation,
    GenerationRequest,
    ModelInfo,
    Sink,
)
from tightloop.protocol.deltas import Finished, FinishReason, Usage
from tightloop.trace.clock import Clock, MonotonicClock

MIN_RETRY_S = 1.0
MAX_RETRY_S = 60.0
"""Between two attempts to start a backend that failed to start."""

WIRE_TIERS: Final = frozenset({None, "auto", "default", "flex", "priority", "scale"})
"""What hosts know as ``service_tier``."""

_log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Told about routes, off the hot path; see ``decisions.DecisionLog``."""

    def decided(self, route: Route) -> None:
        """The route has a backend that answers."""

    def ended(self, route: Route, finished: Finished) -> None:
        """The route is over."""

    def close(self) -> None:
        """The fleet is closed."""


class Fleet:
    """``Engine`` over the members of all groups; the first group's model is the default one.

    ``takes_policies``: a request may name the policy itself (metadata ``tightloop.tier_policy``).
    ``sleep`` waits between attempts to start what failed to.
    """

    def __init__(
        self,
        groups: Sequence[ModelGroup],
        *,
        takes_policies: bool = False,
        recorder: Recorder | None = None,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Raises ``EngineError`` naming what two models, or two backends of one, have in common."""
        check_groups(groups)
        self._groups = {group.name: group for group in groups}
        self._has_open = any(group.is_open for group in groups)
        self._members = {m.name: m for group in groups for m in group.members}
        for group in groups:
            name_tiers(group)
        self._takes_policies = takes_policies
        self._recorder = recorder
        self._clock: Clock = clock or MonotonicClock()
        self._sleep = sleep
        self._book = SessionBook()
        self._context = RouteContext(self._clock, self._book, self._decided, self._ended)
        self._known: list[ModelInfo | None] = []
        self._infos: list[ModelInfo] = []
        self._open: set[Route] = set()
        self._restarts: set[asyncio.Task[None]] = set()
        self._is_closing = False

    # ------------------------------------------------------------------ life

    def models(self) -> Sequence[ModelInfo]:
        """Every model once, the default one first; sizes and windows are known after ``start``."""
        # Hosts may say more about a model than was known at the start.
        known = [member.info for member in self._members.values()]
        if known != self._known or not self._infos:
            self._infos = [describe(group) for group in self._groups.values()]
            self._known = known
        return self._listed() if self._has_open else self._infos

    async def start(self) -> None:
        """All members have been started at the same time, and each model has one that works.

        Those that failed are tried again in the background. Raises ``EngineError`` naming the models
        without a backend, and each backend with its reason.
        """
        async with asyncio.TaskGroup() as tasks:
            started = [(m, tasks.create_task(m.start())) for m in self._members.values()]
        dead = [g for g in self._groups.values() if all(m.engine is None for m in g.members)]
        if dead:
            raise EngineError("; ".join(map(why_none_works, dead)), code="engine_unavailable")
        loop = asyncio.get_running_loop()
        for member, task in started:
            if not task.result():
                _log.warning(
                    "%s did not start, will try again: %s", member.name, member.start_error
                )
                restart = loop.create_task(self._restart(member))
                self._restarts.add(restart)
                restart.add_done_callback(self._restarts.discard)

    async def close(self) -> None:
        """Every response has had its end, and every engine is closed. May be called twice."""
        self._is_closing = True
        restarts = list(self._restarts)
        for task in restarts:
            task.cancel()
        if restarts:
            await asyncio.wait(restarts)
        for route in list(self._open):
            route.cancel()
        async with asyncio.TaskGroup() as tasks:
            for member in self._members.values():
                tasks.create_task(member.close())
        if self._recorder is not None:
            asyncio.get_running_loop().call_soon(self._recorder.close)
            await asyncio.sleep(0)

    async def _restart(self, member: Member) -> None:
        """Until it works; the pause doubles."""
        pause_s = MIN_RETRY_S
        while True:
            await self._sleep(pause_s)
            if await member.start():
                break
            pause_s = min(2 * pause_s, MAX_RETRY_S)
        _log.warning("%s has started", member.name)

    # ------------------------------------------------------------------ requests

    def submit(self, request: GenerationRequest, sink: Sink) -> Generation:
        """Start one response at the member that the policy picks."""
        group = self._group(request.model)
        session = self._book.session(request)
        if group is None or self._is_closing:
            return self._refused(request, sink, session)
        now_ns = self._clock.now_ns()
        standings = [member.standing(now_ns) for member in group.members]
        ask = self._ask(request, session)
        try:
            decision = choose(self._policy(request, group), ask, standings)
        except ValueError as error:
            return self._refused(request, sink, session, str(error), "invalid_value")
        members = self._well(decision, standings)
        if not request.generate:
            return self._hint(request, sink, session, members)
        if request.service_tier not in WIRE_TIERS:
            request = replace(request, service_tier=None)  # a word of ours; hosts would refuse it
        is_forced = not members
        if is_forced:
            members = self._desperate(decision, now_ns)
            if not members:
                return self._refused(request, sink, session, *why_none_may_be_asked(group, now_ns))
        route = Route(self._context, request, sink, session, decision, members, is_forced=is_forced)
        self._open.add(route)
        route.begin()
        return route

    def _hint(
        self, request: GenerationRequest, sink: Sink, session: Session, members: Sequence[Member]
    ) -> Generation:
        """Let the first of ``members`` prefill.

        It takes no place there and says nothing about the member's health: hosts are not even asked.
        """
        for member in members:
            if member.engine is not None:
                if request.is_open:  # a piece: what continues is the request that it is a piece of
                    session.keeper = member.name
                else:
                    self._book.place(request.response_id, session, member.name)
                return member.engine.submit(request, sink)
        finished = Finished(FinishReason.STOP, Usage())
        asyncio.get_running_loop().call_soon(sink, [finished])
        return _Nothing()

    async def count_input(self, request: GenerationRequest) -> int:
        """Input tokens, counted by a member that works: the one with the conversation, if any."""
        group = self._group(request.model)
        if group is None:
            raise EngineError(self._unknown(request.model), code="model_not_found")
        keeper = self._book.keeper(request, self._book.session(request))
        working = [member for member in group.members if member.engine is not None]
        working.sort(key=lambda member: member.name != keeper)
        for member in working:
            if member.engine is not None:
                return await member.engine.count_input(request)
        raise EngineError(why_none_works(group), code="engine_unavailable")

    def standings(self) -> dict[str, list[Standing]]:
        """How each model's members stand now."""
        now_ns = self._clock.now_ns()
        return {
            group.name: [member.standing(now_ns) for member in group.members]
            for group in self._groups.values()
        }

    # ------------------------------------------------------------------ choosing

    def _ask(self, request: GenerationRequest, session: Session) -> Ask:
        usage = request.parent.usage if request.parent is not None else None
        return Ask(
            session_key=session.key,
            service_tier=request.service_tier,
            is_background=request.is_background,
            max_output_tokens=request.max_output_tokens,
            recent_output=session.recent_output,
            num_context=usage.input_tokens + usage.output_tokens if usage is not None else 0,
            keeper=self._book.keeper(request, session),
        )

    def _policy(self, request: GenerationRequest, group: ModelGroup) -> Policy:
        if request.tier_policy is None or not self._takes_policies:
            return group.policy
        policy = parse_policy(request.tier_policy, group.policy.parameters)
        check_labels(policy, group)
        return policy

    def _well(self, decision: Decision, standings: Sequence[Standing]) -> list[Member]:
        available = {standing.name for standing in standings if standing.is_available}
        return [self._members[name] for name in decision.ranked if name in available]

    def _desperate(self, decision: Decision, now_ns: int) -> list[Member]:
        """Those to ask when all are thought to be down, but for whoever asked for a pause.

        A request that is refused here fails for sure; one that is sent may not.
        """
        members = [self._members[name] for name in decision.ranked]
        return [
            member
            for member in members
            if member.engine is not None and not member.breaker.is_asked_to_wait(now_ns)
        ]

    def _refused(
        self,
        request: GenerationRequest,
        sink: Sink,
        session: Session,
        text: str = "the engine is closing",
        code: str = "engine_unavailable",
    ) -> Route:
        if not self._is_closing and self._group(request.model) is None:
            code, text = "model_not_found", self._unknown(request.model)
        decision = Decision("", text, (), "", 0)
        route = Route(self._context, request, sink, session, decision, ())
        self._open.add(route)
        finished = Finished(FinishReason.ERROR, Usage(), None, code, text)
        asyncio.get_running_loop().call_soon(route.end, [finished])
        return route

    def _unknown(self, model: str) -> str:
        names = ", ".join(info.name for info in self.models())
        return f"unknown model {model[:200]!r}; this server has {names}"

    def _group(self, model: str) -> ModelGroup | None:
        group = self._groups.get(model)
        if group is not None and not group.is_open:
            return group
        for open_group in self._groups.values() if self._has_open else ():
            if open_group.is_open and any(
                info.name == model for info in open_group.members[0].models()
            ):
                return open_group
        return None

    def _listed(self) -> list[ModelInfo]:
        """With the models that engines name; of two with one name the first one counts."""
        listed: dict[str, ModelInfo] = {}
        for info, group in zip(self._infos, self._groups.values(), strict=True):
            for found in group.members[0].models() if group.is_open else (info,):
                listed.setdefault(found.name, found)
        return list(listed.values())

    # ------------------------------------------------------------------ bookkeeping

    def _decided(self, route: Route) -> None:
        if self._recorder is not None:
            self._recorder.decided(route)

    def _ended(self, route: Route, finished: Finished) -> None:
        self._open.discard(route)
        ends = (FinishReason.STOP, FinishReason.TOOL_CALLS, FinishReason.LENGTH)
        if finished.reason in ends:
            route.session.note_output(finished.usage.output_tokens)
        if self._recorder is not None:
            self._recorder.ended(route, finished)


class _Nothing:
    """A hint that nobody took."""

    def cancel(self) -> None:
        """There is nothing to cancel."""
