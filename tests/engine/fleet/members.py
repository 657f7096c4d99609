"""Members whose engines are scripted, and can be made to fail."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from tightloop.engine.fleet.breaker import BreakerSettings
from tightloop.engine.fleet.fleet import Fleet
from tightloop.engine.fleet.groups import ModelGroup
from tightloop.engine.fleet.member import Member, MemberSpec
from tightloop.engine.fleet.policy import Policy, parse_policy
from tightloop.engine.fleet.route import Route
from tightloop.engine.interface import EngineError, GenerationRequest
from tightloop.engine.scripted import Answer, Hold, ScriptedEngine, text_answer
from tightloop.protocol.deltas import Finished, FinishReason, Usage


def error(code: str, retry_after_s: float | None = None) -> Finished:
    """The end of a response that failed."""
    text = f"{code} happened"
    return Finished(FinishReason.ERROR, Usage(), None, code, text, retry_after_s=retry_after_s)


class Backend:
    """A member whose engine says its own name, or what ``says`` says."""

    def __init__(self, name: str, model: str | None = None, **spec: Any) -> None:
        self.says: Answer | None = None
        self.start_errors: list[str] = []
        self.engines: list[ScriptedEngine] = []
        self.raises = False
        self.model = model or f"{name}-model"
        breaker = spec.pop("breaker", BreakerSettings(max_consecutive=2, pause_s=10))
        self.member = Member(MemberSpec(name, **spec), self._create, breaker)

    @property
    def num_asked(self) -> int:
        """Requests that reached its engines."""
        return sum(len(engine.requests) for engine in self.engines)

    def _create(self) -> ScriptedEngine:
        if self.start_errors:
            raise EngineError(self.start_errors.pop(0), code="engine_unavailable")
        self.engines.append(ScriptedEngine(self._answer, name=self.model))
        return self.engines[-1]

    def _answer(self, _request: GenerationRequest) -> Answer:
        if self.raises:
            raise RuntimeError("broken")
        return text_answer(self.member.name) if self.says is None else self.says

    def hold(self) -> Hold:
        """The next answers wait before their first delta, until it is released."""
        hold = Hold()
        self.says = [hold, *text_answer(self.member.name)]
        return hold


def group(name: str, *backends: Backend, policy: str = "latency-first") -> ModelGroup:
    """A model of these members."""
    chosen: Policy = parse_policy(policy)
    return ModelGroup(name, [backend.member for backend in backends], chosen)


async def started(*groups: ModelGroup, **options: Any) -> Fleet:
    """A fleet at work."""
    fleet = Fleet(groups, **options)
    await fleet.start()
    return fleet


class Records:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.routes: list[Route] = []
        self.ends: list[Finished] = []
        self.is_closed = False

    def decided(self, route: Route) -> None:
        self.routes.append(route)

    def ended(self, _route: Route, finished: Finished) -> None:
        self.ends.append(finished)

    def close(self) -> None:
        self.is_closed = True


class Pauses:
    """Stands in for ``asyncio.sleep``: each pause lasts until ``go_on``."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._gates: list[asyncio.Event] = []
        self.begun = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        gate = asyncio.Event()
        self._gates.append(gate)
        self.begun.set()
        await gate.wait()

    async def go_on(self) -> None:
        """End the pause that is on, or the next one, and wait until what follows has been done."""
        await self.begun.wait()
        self.begun.clear()
        self._gates.pop(0).set()


async def until(is_true: Callable[[], object]) -> None:
    """Let the event loop go on until ``is_true``."""
    loop = asyncio.get_running_loop()
    while not is_true():
        turn: asyncio.Future[None] = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn


def names(engines: Sequence[Backend]) -> list[int]:
    """How many requests each has had."""
    return [engine.num_asked for engine in engines]
