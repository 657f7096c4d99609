"""One backend of a model: its engine, its breaker, its line of waiting requests, its measured load."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tightloop.engine.admission import MAX_OVERTAKES
from tightloop.engine.fleet.breaker import BreakerSettings, CircuitBreaker
from tightloop.engine.fleet.policy import FAST, Price, Standing
from tightloop.engine.interface import Engine, EngineError, ModelInfo
from tightloop.protocol.deltas import EngineTiming

_log = logging.getLogger(__name__)

MAX_WAITING = 512
"""In one member's line. A wait with heartbeats serves an agent better than a refusal."""

_WEIGHT = 0.2
"""Of the newest measurement in an average."""


@dataclass(frozen=True, slots=True)
class MemberSpec:
    """What the configuration says about a member.

    ``engine`` is its engine's name as in ``registry.create_engine``, for people to read.
    ``max_open`` requests are with it at once, others wait in line; 0: no limit.
    ``first_token_timeout_s``: without a first delta after that it counts as failed; None: never.
    ``keeps_names``: its engine serves several models, each under its own name.
    """

    name: str
    engine: str = ""
    tier: str = FAST
    price: Price = field(default_factory=Price)
    max_open: int = 0
    first_token_timeout_s: float | None = None
    keeps_names: bool = False


class Waiter(Protocol):
    """Something in a member's line."""

    def admitted(self, member: "Member") -> None:
        """Its turn has come: it holds one of the member's places now."""


class Member:
    """A backend at work. ``create`` makes its engine, anew for every attempt to start it."""

    def __init__(
        self,
        spec: MemberSpec,
        create: Callable[[], Engine],
        breaker: BreakerSettings | None = None,
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.breaker = CircuitBreaker(breaker)
        self.engine: Engine | None = None
        """The engine once it has started, else None."""
        self.start_error: EngineError | None = None
        self.num_open = 0
        self.service_tier = "default"
        """What a response made here says, in the API's words; set where the tiers of a model differ."""
        self._create = create
        self._line: deque[Waiter] = deque()
        self._unhurried: deque[Waiter] = deque()
        self._num_overtakes = 0
        self._is_calling = False
        self._wait_s = 0.0
        self._service_s = 0.0

    # ------------------------------------------------------------------ life

    async def start(self) -> bool:
        """Whether its engine runs now; if not, ``start_error`` says why."""
        engine: Engine | None = None
        try:
            engine = self._create()
            await engine.start()
        except EngineError as error:
            self.start_error = error
        except Exception as error:  # noqa: BLE001 - one backend's fault must not end the others
            text = f"{type(error).__name__}: {error}"
            self.start_error = EngineError(text, code="engine_unavailable")
        except BaseException:  # the fleet is closed meanwhile
            await self._close(engine)
            raise
        else:
            self.engine, self.start_error = engine, None
            return True
        await self._close(engine)
        return False

    def models(self) -> Sequence[ModelInfo]:
        """What its engine serves; nothing before it has started."""
        return self.engine.models() if self.engine is not None else ()

    @property
    def info(self) -> ModelInfo | None:
        """What its engine says about its model now."""
        models = self.models()
        return models[0] if models else None

    async def close(self) -> None:
        """The engine is closed. May be called twice."""
        engine, self.engine = self.engine, None
        await self._close(engine)

    async def _close(self, engine: Engine | None) -> None:
        if engine is None:
            return
        try:
            await engine.close()
        except Exception:  # noqa: BLE001 - one backend's fault must not keep the others open
            _log.exception("%s could not be closed", self.name)

    # ------------------------------------------------------------------ places

    def enter(self, waiter: Waiter, *, is_hurried: bool) -> bool:
        """Whether there was a place at once; if not, ``waiter`` is in line."""
        if not self.spec.max_open or self.num_open < self.spec.max_open:
            self.num_open += 1
            return True
        (self._line if is_hurried else self._unhurried).append(waiter)
        return False

    def leave(self) -> None:
        """A place is free, and goes to whoever is first in line; see ``admission.MAX_OVERTAKES``."""
        self.num_open -= 1
        if self._is_calling:
            return  # who was called did not stay; the loop below goes on
        self._is_calling = True
        try:
            while (self._line or self._unhurried) and self.num_open < self.spec.max_open:
                self.num_open += 1
                self._first().admitted(self)
        finally:
            self._is_calling = False

    def _first(self) -> Waiter:
        """Who comes next, and is no longer in line: background work last, but never for ever."""
        if self._line and (not self._unhurried or self._num_overtakes < MAX_OVERTAKES):
            self._num_overtakes = self._num_overtakes + 1 if self._unhurried else 0
            return self._line.popleft()
        self._num_overtakes = 0
        return self._unhurried.popleft()

    def forget(self, waiter: Waiter) -> None:
        """``waiter``, which is in line, waits no more."""
        (self._line if waiter in self._line else self._unhurried).remove(waiter)

    @property
    def num_waiting(self) -> int:
        """Requests in line."""
        return len(self._line) + len(self._unhurried)

    @property
    def is_crowded(self) -> bool:
        """Whether its line is too long to join."""
        return self.num_waiting >= MAX_WAITING

    # ------------------------------------------------------------------ measurements

    def note(self, timing: EngineTiming) -> None:
        """A response ended well; what it says about queue and service time."""
        queue_s = max(0, timing.started_ns - timing.submitted_ns) / 1e9
        service_s = max(0, timing.finished_ns - timing.started_ns) / 1e9
        self._wait_s += _WEIGHT * (queue_s - self._wait_s)
        self._service_s += _WEIGHT * (service_s - self._service_s)

    def wait_s(self) -> float:
        """What a request would wait: as measured of late, or by the line in front of it.

        Nobody waits at an idle backend, whatever was measured before.
        """
        if not self.num_open:
            return 0.0
        limit = self.spec.max_open
        num_ahead = self.num_waiting + (1 if limit and self.num_open >= limit else 0)
        in_line_s = num_ahead * self._service_s / limit if num_ahead else 0.0
        return max(in_line_s, self._wait_s)

    def standing(self, now_ns: int) -> Standing:
        """What the policy may know of it."""
        spec, info = self.spec, self.info
        return Standing(
            name=self.name,
            tier=spec.tier,
            is_available=self.engine is not None and self.breaker.is_admitting(now_ns),
            num_open=self.num_open + self.num_waiting,
            max_open=spec.max_open,
            wait_s=self.wait_s(),
            context_window=info.context_window if info else 0,
            price=spec.price,
        )
