"""One response on its way through the members of a model.

A member that fails before its first delta is followed by the next one, and nobody sees it. After a
delta nothing is asked again: a second answer could repeat tool calls. After the first delta a batch
costs one call and one look at its last delta.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from tightloop.engine.fleet.breaker import State
from tightloop.engine.fleet.member import MAX_WAITING, Member
from tightloop.engine.fleet.policy import Decision
from tightloop.engine.fleet.sessions import Session, SessionBook
from tightloop.engine.interface import Generation, GenerationRequest, Sink
from tightloop.protocol.deltas import Delta, EngineTiming, Finished, FinishReason, Usage
from tightloop.trace.clock import Clock

_log = logging.getLogger(__name__)

MEMBER_FAULTS: Final = frozenset(
    {
        "engine_unavailable",
        "insufficient_quota",
        "invalid_api_key",  # this server's key for the host, not the client's
        "model_not_found",
        "permission_denied",
        "rate_limit_exceeded",
        "server_error",
        "server_is_overloaded",
        "upstream_error",
        "upstream_timeout",
    }
)
"""Codes that say something about the backend and nothing about the request."""

MEMBER_LIMITS: Final = frozenset({"context_length_exceeded", "unsupported_content"})
"""Codes of a healthy backend to which another one may say something else."""

REQUEST_FAULTS: Final = MEMBER_LIMITS | {
    "content_filter",
    "invalid_encrypted_content",
    "invalid_grammar",
    "invalid_json",
    "invalid_json_schema",
    "invalid_prompt",
    "invalid_request",
    "invalid_type",
    "invalid_value",
    "missing_required_parameter",
    "string_above_max_length",
    "unsupported_parameter",
}
"""Codes that any backend would end the request with. One that is in no list, as hosts have them of
their own, is asked about elsewhere, but tells nothing of how the backend is."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A member that did not answer: ``after_s`` seconds after it was asked."""

    member: str
    code: str
    message: str
    after_s: float


@dataclass(frozen=True, slots=True)
class RouteContext:
    """What all routes of a fleet share. ``decided`` and ``ended`` are called off the hot path."""

    clock: Clock
    book: SessionBook
    decided: Callable[["Route"], None]
    ended: Callable[["Route", Finished], None]


class Route:
    """The handle of one response, no hint to prefill; ``begin`` once.

    ``members`` are asked in this order. ``is_forced``: none of them is thought to be well, so they are
    asked although their breakers are open.
    """

    def __init__(
        self,
        context: RouteContext,
        request: GenerationRequest,
        sink: Sink,
        session: Session,
        decision: Decision,
        members: Sequence[Member],
        *,
        is_forced: bool = False,
    ) -> None:
        self.context = context
        self.request = request
        self.sink = sink
        self.session = session
        self.decision = decision
        self.failures: list[Failure] = []
        self.member: Member | None = None
        """The member that is being asked, or was asked last."""
        self.is_cancelled = False
        self.is_over = False
        self.is_logged = False
        self.submitted_ns = context.clock.now_ns()
        self.first_delta_ns = 0
        self._candidates = deque(members)
        self._is_forced = is_forced
        self._waits_for: Member | None = None
        self._has_waited = False
        self._attempt: _Attempt | None = None
        self._last: Finished | None = None
        self._is_crowded_out = False

    # ------------------------------------------------------------------ to the members

    def begin(self) -> None:
        """The first member has been asked, or the response is in its line."""
        self._go_on()

    def cancel(self) -> None:
        """Ask for an early end; the sink still gets one ``Finished``."""
        self.is_cancelled = True
        if self._waits_for is not None:
            self._waits_for.forget(self)
            self._waits_for = None
            asyncio.get_running_loop().call_soon(self._give_up)
        elif self._attempt is not None:
            self._attempt.cancel()

    def admitted(self, member: Member) -> None:
        """Its place in a member's line has become a place at the member."""
        self._waits_for = None
        if not self._ask(member):
            member.leave()
            self._go_on()

    def failed(self, failure: Failure, finished: Finished) -> None:
        """A member has not answered: the next one, if there is one and somebody still waits."""
        self.failures.append(failure)
        if self._last is None or self._last.error_code not in MEMBER_LIMITS:
            self._last = finished  # what a client can do something about counts for more
        self._go_on()

    def may_go_on(self, code: str | None) -> bool:
        """Whether a failure with ``code`` is to be kept from the client for now."""
        if self.is_cancelled:
            return False
        if code in MEMBER_LIMITS:
            return bool(self._candidates)
        return code not in REQUEST_FAULTS

    @property
    def reason(self) -> str:
        """The policy, and why the response is where it is; see ``story``."""
        return f"{self.decision.policy}: {self.story}"

    @property
    def story(self) -> str:
        """Why the response is where it is: the decision's reason, unless its choice did not answer.

        Then: who does, what failed before, and why another had been chosen.
        """
        decided, member, failures = self.decision, self.member, self.failures
        if not failures and (member is None or member.name == decided.member):
            return decided.reason
        is_answered = member is not None and (not failures or failures[-1].member != member.name)
        who = f"{member.name} answers" if member is not None and is_answered else "nobody answers"
        failed = "; ".join(f"{failure.member} failed: {failure.code}" for failure in failures)
        why = failed or f"{decided.member} could not be asked"
        return f"{who}, because {why}; {decided.member} had been chosen: {decided.reason}"

    def _go_on(self) -> None:
        while self._candidates and not self.is_cancelled:
            member = self._candidates.popleft()
            if member.is_crowded:
                self._is_crowded_out = True
                continue
            if not member.enter(self, is_hurried=not self.request.is_background):
                self._waits_for = member
                self._has_waited = True
                return
            if self._ask(member):
                return
            member.leave()
        if self._last is None:
            asyncio.get_running_loop().call_soon(self._give_up)  # never from within ``submit``
        else:
            self._give_up()

    def _ask(self, member: Member) -> bool:
        """Whether the member was asked; it may have answered or failed by now."""
        now_ns = self.context.clock.now_ns()
        engine, breaker = member.engine, member.breaker
        if engine is None:
            return False
        ticket = breaker.force(now_ns) if self._is_forced else breaker.admit(now_ns)
        if ticket is None:
            return False
        self.member = member
        self.context.book.place(self.request.response_id, self.session, member.name)
        self._attempt = attempt = _Attempt(self, member, ticket, now_ns)
        try:
            generation = engine.submit(self.request, attempt.sink())
            if not attempt.is_over:
                attempt.generation = generation
        except Exception as error:  # noqa: BLE001 - a broken engine must not end the route
            text = f"{type(error).__name__}: {error}"
            broken = Finished(FinishReason.ERROR, Usage(), None, "server_error", text)
            asyncio.get_running_loop().call_soon(attempt.sink(), [broken])
        return True

    # ------------------------------------------------------------------ the end

    def _give_up(self) -> None:
        """Nobody is left to ask."""
        if self.is_over:
            return
        if self.is_cancelled:
            finished = Finished(FinishReason.CANCELLED, Usage())
        elif self._last is not None:
            finished = self._last
            if len(self.failures) > 1:
                others = "; ".join(f"{f.member}: {f.message}" for f in self.failures[:-1])
                text = f"{finished.error_message} (before it, {others})"
                finished = msgspec.structs.replace(finished, error_message=text)
        elif self._is_crowded_out:
            # In words that Codex reads a pause from; it gives up at once on "overloaded".
            text = f"{MAX_WAITING} responses wait already. Please try again in 1s."
            finished = Finished(FinishReason.ERROR, Usage(), None, "rate_limit_exceeded", text)
        else:
            text = f"no backend of {self.request.model!r} can be asked at the moment; retry soon"
            finished = Finished(FinishReason.ERROR, Usage(), None, "engine_unavailable", text)
        self.end([self.stamped(finished)])

    def end(self, deltas: Sequence[Delta]) -> None:
        """The last batch goes out."""
        self.is_over = True
        self._attempt = None  # which knows its route: without the circle both go at once
        self.sink(deltas)
        last = deltas[-1]
        assert isinstance(last, Finished)
        self.context.ended(self, last)

    def stamped(self, finished: Finished) -> Finished:
        """``finished`` with who made it and why; time before its last attempt counts as queue."""
        member = self.member
        timing = finished.timing
        if timing is not None and (self.failures or self._has_waited):
            timing = _since(timing, self.submitted_ns)
        return msgspec.structs.replace(
            finished,
            timing=timing,
            backend=member.name if member is not None else None,
            route_reason=self.reason,
            service_tier=finished.service_tier
            or (member.service_tier if member is not None else None),
        )


def _since(timing: EngineTiming, submitted_ns: int) -> EngineTiming:
    return msgspec.structs.replace(timing, submitted_ns=min(timing.submitted_ns, submitted_ns))


class _Attempt:
    """One member being asked; ``sink`` is what its engine is given."""

    __slots__ = (
        "_asked_ns",
        "_has_begun",
        "_is_dropped",
        "_member",
        "_route",
        "_sink",
        "_ticket",
        "_timer",
        "generation",
        "is_over",
    )

    def __init__(self, route: Route, member: Member, ticket: int, now_ns: int) -> None:
        self.generation: Generation | None = None
        self.is_over = False
        self._route = route
        self._member = member
        self._ticket = ticket
        self._asked_ns = now_ns
        self._sink = route.sink
        self._has_begun = False
        self._is_dropped = False
        self._timer: asyncio.TimerHandle | None = None
        timeout_s = member.spec.first_token_timeout_s
        if timeout_s is not None:
            self._timer = asyncio.get_running_loop().call_later(timeout_s, self._time_out)

    def cancel(self) -> None:
        if self.generation is not None:
            self.generation.cancel()

    def sink(self) -> Sink:
        """Looks at the first and the last batch; the others cost one call and the look for the last.

        Not a method: what a closure holds is at hand, and this is called for every batch.
        """
        forward, look, is_flowing = self._sink, self._look, False

        def receive(deltas: Sequence[Delta]) -> None:
            nonlocal is_flowing
            if is_flowing and type(deltas[-1]) is not Finished:
                forward(deltas)
            elif deltas:
                look(deltas)
                is_flowing = self._has_begun

        return receive

    def _look(self, deltas: Sequence[Delta]) -> None:
        last = deltas[-1]
        finished = last if isinstance(last, Finished) else None
        if finished is not None:
            self.is_over = True
            self.generation = None  # it holds the sink, which holds this
        if self._is_dropped:
            if finished is not None:
                self._member.leave()
            return
        route = self._route
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        is_silent = not self._has_begun and finished is not None and len(deltas) == 1
        if not self._has_begun and not is_silent:
            self._begin()
        if finished is None:
            self._sink(deltas)
            route.context.decided(route)
            return
        code = finished.error_code if finished.reason is FinishReason.ERROR else None
        if is_silent and code is not None and route.may_go_on(code):
            self._report(finished)
            self._member.leave()
            route.failed(self._failure(code, finished.error_message or ""), finished)
            return
        route.end([*deltas[:-1], route.stamped(finished)])
        self._report(finished)
        self._member.leave()

    def _begin(self) -> None:
        """The first delta is here: the member is well, and keeps this response."""
        self._has_begun = True
        route = self._route
        now_ns = route.context.clock.now_ns()
        route.first_delta_ns = now_ns
        breaker = self._member.breaker
        ticket = breaker.succeed(self._ticket, now_ns)
        if ticket != self._ticket and breaker.state(now_ns) is State.CLOSED:
            _log.warning("%s answers again", self._member.name)
        self._ticket = ticket

    def _report(self, finished: Finished) -> None:
        """Tell the breaker and the averages how it went."""
        member, now_ns = self._member, self._route.context.clock.now_ns()
        code = finished.error_code
        if finished.reason is FinishReason.CANCELLED:
            member.breaker.release(self._ticket)
        elif finished.reason is FinishReason.ERROR and code in MEMBER_FAULTS:
            was_open = member.breaker.state(now_ns) is State.OPEN
            member.breaker.fail(self._ticket, now_ns, retry_after_s=finished.retry_after_s)
            pause_s = member.breaker.pause_left_s(now_ns)
            if pause_s and not was_open:
                text = finished.error_message
                _log.warning("%s is left alone for %.1f s: %s", member.name, pause_s, text)
        elif finished.reason is FinishReason.ERROR and code not in REQUEST_FAULTS:
            member.breaker.release(
                self._ticket
            )  # a word of the host's own, which may mean anything
        elif not self._has_begun:
            member.breaker.succeed(self._ticket, now_ns)
        if finished.timing is not None and finished.reason is not FinishReason.ERROR:
            member.note(finished.timing)

    def _time_out(self) -> None:
        """Silence for too long: the engine is told to stop, and what it still says is not heard."""
        self._timer = None
        timeout_s = self._member.spec.first_token_timeout_s
        text = f"{self._member.name} said nothing for {timeout_s} s"
        finished = Finished(FinishReason.ERROR, Usage(), None, "upstream_timeout", text)
        self._is_dropped = True  # its place is free when its engine has ended it
        self._report(finished)
        self.cancel()
        self._route.failed(self._failure("upstream_timeout", text), finished)

    def _failure(self, code: str, message: str) -> Failure:
        after_ns = self._route.context.clock.now_ns() - self._asked_ns
        return Failure(self._member.name, code, message[:300], after_ns / 1e9)
