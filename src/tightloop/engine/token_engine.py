"""Turns a ``TokenBackend`` and a ``ModelFamily`` into an ``Engine``.

One thread owns the backend. Jobs are the family's generators; rounds (``rounds``) advance all that
run, so that sessions share each decode step and a long prefill delays others by one chunk at most.
Deltas cross to the event loop through one deque with one wake-up per batch: while a wake-up is
under way, whatever is produced joins it. A first delta and a closed tool call wake it at once, the
rest at the end of its step, but no more than once in two milliseconds.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from tightloop.engine.admission import Admission
from tightloop.engine.doorbell import Doorbell
from tightloop.engine.interface import (
    EngineError,
    GenerationRequest,
    ModelFamily,
    ModelInfo,
    Sink,
    TokenBackend,
)
from tightloop.engine.rounds import SHARED_TOKENS, Rounds, never
from tightloop.engine.run import Run
from tightloop.engine.sequence_pool import SequencePool
from tightloop.engine.shelf import SAVED_BYTES, WarmStats
from tightloop.engine.turn import Turn
from tightloop.protocol.deltas import Delta, Finished, FinishReason
from tightloop.trace.clock import Clock, MonotonicClock

MAX_OPEN = 512
"""Responses running or waiting: a wait with heartbeats serves an agent better than a refusal."""

PAUSE_NS = 2_000_000
"""Between two wake-ups of the loop while one short step follows another: what a token may wait."""

FamilyFactory = Callable[[SequencePool], ModelFamily]
Describe = Callable[[TokenBackend], ModelInfo]


@dataclass(slots=True)
class _Count:
    """Somebody on the event loop wants to know how long a request's prompt is."""

    request: GenerationRequest
    answer: asyncio.Future[int]
    steps: Generator[None, None, int] | None = None


class TokenEngine:
    """An ``Engine`` over one ``TokenBackend``.

    ``load`` makes the backend and ``family`` its family, both on the owner thread. ``describe``
    says what is served once it is loaded. ``max_running`` jobs share the machine, others wait as
    ``admission`` says; a job beyond ``max_open`` is refused with code ``rate_limit_exceeded`` and words that
    clients read a pause from. ``warm_bytes`` and ``saved_bytes`` are the pool's,
    ``shared_tokens`` is ``Rounds``'.
    """

    def __init__(
        self,
        load: Callable[[], TokenBackend],
        family: FamilyFactory,
        *,
        name: str,
        describe: Describe | None = None,
        max_running: int = 16,
        max_open: int = MAX_OPEN,
        warm_bytes: int | None = None,
        saved_bytes: int = SAVED_BYTES,
        shared_tokens: int = SHARED_TOKENS,
        clock: Clock | None = None,
    ) -> None:
        self.clock: Clock = clock or MonotonicClock()
        self._load = load
        self._make_family = family
        self._describe = describe
        self._info = ModelInfo(name)
        self._max_running = max_running
        self._max_open = max_open
        self._warm_bytes = warm_bytes
        self._saved_bytes = saved_bytes
        self._shared_tokens = shared_tokens
        self._pool: SequencePool | None = None
        self._num_open = 0
        self._incoming: SimpleQueue[Run | _Count | None] = SimpleQueue()
        self._outbox: deque[tuple[Run, Delta]] = deque()
        self._is_drain_scheduled = False
        self._turn = Turn()
        self._now_ns = self.clock.now_ns
        self._pause_ns = PAUSE_NS
        self._rung_ns = -PAUSE_NS
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bell: Doorbell | None = None
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None
        self._is_closing = False

    # -- the event loop's side ---------------------------------------------------------

    def models(self) -> Sequence[ModelInfo]:
        """The one model; its size and window are known once ``start`` has returned."""
        return [self._info]

    def stats(self) -> WarmStats:
        """What is kept of conversations now, and what had to make way; zeros before ``start``."""
        return WarmStats() if self._pool is None else self._pool.stats()

    async def start(self) -> None:
        """The model is loaded. Raises what the loader raises (``EngineError``)."""
        if self._thread is not None:
            return
        self._loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._bell = Doorbell(self._loop, self._drain)
        self._thread = threading.Thread(
            target=self._own, args=(ready,), name=f"engine-{self._info.name}", daemon=True
        )
        self._thread.start()
        await ready

    async def close(self) -> None:
        """Every response has had its ``Finished`` and the model is released."""
        if self._thread is None or self._ended is None:
            return
        if not self._is_closing:
            self._is_closing = True
            self._incoming.put(None)
            self._turn.cancel_any()
        await asyncio.shield(self._ended)
        self._thread.join()
        self._drain()
        if self._bell is not None:
            self._bell.close()

    def submit(self, request: GenerationRequest, sink: Sink) -> Run:
        """Queue one response. Refusals also come as ``Finished``, in a later loop iteration."""
        run = Run(self, request, sink)
        self._num_open += 1
        loop = self._loop
        if loop is None or self._is_closing:
            loop = loop or asyncio.get_running_loop()
            error = self._unavailable()
            loop.call_soon(self._refuse, run, str(error), error.code)
        elif self._num_open > self._max_open:
            # Codex gives up at once on "overloaded", and waits for as long as these words say.
            text = f"{self._max_open} responses are running or waiting. Please try again in 1s."
            loop.call_soon(self._refuse, run, text, "rate_limit_exceeded")
        else:
            self._incoming.put(run)
        return run

    async def count_input(self, request: GenerationRequest) -> int:
        """Tokens of the request's prompt, counted between the steps of responses.

        Raises ``EngineError`` as ``ModelFamily.count_input`` does, and with code
        ``engine_unavailable`` before ``start`` and once the engine closes.
        """
        if self._loop is None or self._is_closing:
            raise self._unavailable()
        answer: asyncio.Future[int] = self._loop.create_future()
        self._incoming.put(_Count(request, answer))
        return await answer

    def _unavailable(self) -> EngineError:
        state = "is closing" if self._is_closing else "has not been started"
        return EngineError(f"the engine {state}", code="engine_unavailable")

    def cancel(self, run: Run) -> None:
        """``run`` ends soon, also in the middle of a prefill chunk."""
        self._turn.cancel(run)

    def _refuse(self, run: Run, message: str, code: str) -> None:
        self._deliver(run, [run.finished(FinishReason.ERROR, code, message)])

    def _drain(self) -> None:
        # Cleared before the deque is emptied: a delta that arrives from now on is either taken
        # below or schedules the next drain.
        self._is_drain_scheduled = False
        outbox = self._outbox
        batches: dict[Run, list[Delta]] = {}
        while outbox:
            run, delta = outbox.popleft()
            batches.setdefault(run, []).append(delta)
        for run, batch in batches.items():
            self._deliver(run, batch)

    def _deliver(self, run: Run, batch: list[Delta]) -> None:
        if isinstance(batch[-1], Finished):
            run.is_finished = True
            self._num_open -= 1
        run.sink(batch)

    # -- the owner thread's side -------------------------------------------------------

    def put(self, run: Run, delta: Delta, *, is_urgent: bool) -> None:
        """Hand a delta to the event loop; an urgent one wakes it now, others at the step's end."""
        self._outbox.append((run, delta))
        if is_urgent:
            self._wake()

    def _wake(self, is_soon_again: bool = False) -> None:
        if not self._outbox:
            return
        if is_soon_again:  # only these keep the pause: the step that follows may be a long one
            now_ns = self._now_ns()
            if now_ns - self._rung_ns < self._pause_ns:
                return
            self._rung_ns = now_ns
        assert self._loop is not None
        assert self._bell is not None
        if self._loop.is_closed():  # under a running engine: nobody listens any more
            self._give_up()
        elif not self._is_drain_scheduled:
            self._is_drain_scheduled = True
            self._bell.ring()

    def _on_loop(self, callback: Callable[[], None]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # as in _wake
            self._give_up()

    def _give_up(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._incoming.put(None)

    def _own(self, ready: asyncio.Future[None]) -> None:
        pool: SequencePool | None = None
        try:
            backend = self._load()
            pool = SequencePool(
                backend,
                lambda: self._turn.is_cancelled,
                warm_bytes=self._warm_bytes,
                saved_bytes=self._saved_bytes,
            )
            self._turn.stop = backend.cancel
            family = self._make_family(pool)
            if self._describe is not None:
                self._info = self._describe(backend)
        except Exception as error:  # noqa: BLE001 - handed to whoever awaits start()
            if pool is not None:
                pool.shutdown()
            self._end(ready, error)
            return
        self._pool = pool
        self._on_loop(lambda: _settle(ready))
        try:
            self._serve(
                Rounds(
                    family,
                    pool,
                    self._turn,
                    self._finish,
                    self._wake,
                    shared_tokens=self._shared_tokens,
                ),
                family,
            )
        finally:
            self._turn.end()
            pool.shutdown()
            self._refuse_counts()
            self._end(ready, None)

    def _end(self, ready: asyncio.Future[None], error: Exception | None) -> None:
        assert self._ended is not None
        ended = self._ended
        self._on_loop(lambda: _settle(ready, error))
        self._on_loop(lambda: _settle(ended))

    def _refuse_counts(self) -> None:
        """Nobody waits for a count that will not come, however the owner thread ended."""
        self._is_closing = True
        while not self._incoming.empty():
            item = self._incoming.get()
            if isinstance(item, _Count):
                self._on_loop(partial(_settle, item.answer, self._unavailable()))

    def _serve(self, rounds: Rounds, family: ModelFamily) -> None:
        admission = Admission(self._max_running)
        running: list[Run] = []
        counts: deque[_Count] = deque()
        is_open = True
        while is_open:
            is_idle = not (running or admission.waiting or counts)
            is_open = self._receive(admission.waiting, counts, is_idle=is_idle)
            for _ in range(len(counts)):
                count = counts.popleft()
                if self._count(count, family):
                    counts.append(count)
            if admission.waiting:
                for run in admission.take_cancelled():
                    self._finish(run, FinishReason.CANCELLED)
                running += admission.admit(running)
            is_quiet = is_open and not (admission.waiting or counts)
            running = rounds.make(running, self._incoming.empty if is_quiet else never)
        for run in [*running, *admission.waiting]:
            run.is_cancelled = True
        rounds.make([*running, *admission.waiting])
        for count in counts:
            while self._count(count, family):
                pass

    def _count(self, count: _Count, family: ModelFamily) -> bool:
        """One step of counting; False once it was answered, however, or nobody asks any more."""
        answer = count.answer
        if answer.done():
            return False
        try:
            count.steps = count.steps or family.count_input(count.request)
            next(count.steps)
        except StopIteration as end:
            self._on_loop(partial(_tell, answer, end.value))
        except EngineError as error:
            self._on_loop(partial(_settle, answer, error))
        except BaseException as error:  # noqa: BLE001 - as in _step
            failure = EngineError(f"{type(error).__name__}: {error}")
            self._on_loop(partial(_settle, answer, failure))
        else:
            return True
        return False

    def _receive(self, waiting: list[Run], counts: deque[_Count], *, is_idle: bool) -> bool:
        """Take what was submitted, waiting for it when idle; False once the engine closes."""
        try:
            if not is_idle and self._incoming.empty():  # what every token sees: no exception
                return True
            item = self._incoming.get(block=is_idle)
            while item is not None:
                if isinstance(item, Run):
                    waiting.append(item)
                else:
                    counts.append(item)
                item = self._incoming.get_nowait()
        except Empty:
            return True
        return False

    def _finish(
        self, run: Run, reason: FinishReason, code: str | None = None, message: str | None = None
    ) -> None:
        if run.is_cancelled and reason is not FinishReason.ERROR:
            reason = FinishReason.CANCELLED
        self._outbox.append((run, run.finished(reason, code, message)))
        self._wake()


def _settle(future: asyncio.Future[Any], error: Exception | None = None) -> None:
    """The future is done; one that already is (its waiter was cancelled) stays as it is."""
    if error is None:
        _tell(future, None)
    elif not future.done():
        future.set_exception(error)


def _tell(future: asyncio.Future[Any], value: object) -> None:
    """The future has ``value``, unless it is done already."""
    if not future.done():
        future.set_result(value)
