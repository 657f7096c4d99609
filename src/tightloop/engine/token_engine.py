"""Turns a ``TokenBackend`` and a ``ModelFamily`` into an ``Engine``.

One thread owns the backend. Jobs are the family's generators, stepped in turn, so that sessions
share the machine token by token and a long prefill delays another session by one chunk at most.
Deltas cross to the event loop through one deque with one wake-up per batch: while a wake-up is
under way, whatever is produced joins it; nothing ever waits for a batch to fill.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from tightloop.engine.doorbell import Doorbell
from tightloop.engine.interface import (
    Cancelled,
    EngineError,
    Evaluate,
    GenerationRequest,
    Job,
    ModelFamily,
    ModelInfo,
    Sink,
    TokenBackend,
)
from tightloop.engine.sequence_pool import SequencePool
from tightloop.protocol.deltas import (
    Delta,
    EngineTiming,
    Finished,
    FinishReason,
    ToolCallDone,
    Usage,
)
from tightloop.trace.clock import Clock, MonotonicClock, now_ns

MAX_OPEN = 512
"""Responses running or waiting: a wait with heartbeats serves an agent better than a refusal."""

FamilyFactory = Callable[[SequencePool], ModelFamily]
Describe = Callable[[TokenBackend], ModelInfo]


class Run:
    """One response being made: the handle for the caller, the bookkeeping for the thread."""

    def __init__(self, engine: "TokenEngine", request: GenerationRequest, sink: Sink) -> None:
        self.request = request
        self.sink = sink
        self.is_cancelled = False
        self.is_finished = False
        self.steps: Generator[Evaluate | None, Any, FinishReason] | None = None
        self.wanted: Evaluate | None = None
        """What its last step asked for."""
        self._engine = engine
        self._now_ns = engine.clock.now_ns
        self.submitted_ns = self._now_ns()
        self.started_ns = self.prefilled_ns = self.first_delta_ns = 0
        self.num_prefill = self.num_reused = self.num_steps = 0
        self.decode_ns = self.num_output = self.num_reasoning = 0
        self.stop_sequence: str | None = None

    def cancel(self) -> None:
        """The response ends soon with ``Finished`` (CANCELLED); after its end this does nothing."""
        self._engine.cancel(self)

    def job(self) -> Job:
        """What the family gets to see."""
        return Job(
            request=self.request,
            emit=self._emit,
            is_cancelled=lambda: self.is_cancelled,
            mark_prefilled=self._mark_prefilled,
            count_prefill=self._count_prefill,
            count_decode=self._count_decode,
            count_output=self._count_output,
            count_reasoning=self._count_reasoning,
            report_stop=self._report_stop,
        )

    def finished(self, reason: FinishReason, code: str | None, message: str | None) -> Finished:
        """The last delta, with every mark in order even when a phase was never reached."""
        now = self._now_ns()
        started = self.started_ns or now
        timing = EngineTiming(
            submitted_ns=self.submitted_ns,
            started_ns=started,
            prefilled_ns=max(started, self.prefilled_ns or self.first_delta_ns or now),
            finished_ns=now,
            num_prefill_tokens=self.num_prefill,
            num_decode_steps=self.num_steps,
            decode_ns=self.decode_ns,
            first_delta_ns=self.first_delta_ns,
        )
        usage = Usage(
            input_tokens=self.num_prefill + self.num_reused,
            cached_tokens=self.num_reused,
            output_tokens=self.num_output,
            reasoning_tokens=self.num_reasoning,
        )
        return Finished(reason, usage, timing, code, message, self.stop_sequence)

    def _emit(self, delta: Delta) -> None:
        is_first = not self.first_delta_ns
        if is_first:
            self.first_delta_ns = self._now_ns()
        # The first delta is what the user waits for, and a closed tool call can be started: both
        # go at once. The rest goes at the end of the step, at most one token later.
        self._engine.put(self, delta, is_urgent=is_first or isinstance(delta, ToolCallDone))

    def _mark_prefilled(self) -> None:
        self.prefilled_ns = self._now_ns()

    def _count_prefill(self, evaluated: int, reused: int) -> None:
        self.num_prefill += evaluated
        self.num_reused += reused

    def _count_decode(self, steps: int, inside_ns: int) -> None:
        self.num_steps += steps
        self.decode_ns += inside_ns

    def _count_output(self, tokens: int) -> None:
        self.num_output += tokens

    def _count_reasoning(self, tokens: int) -> None:
        self.num_reasoning += tokens

    def _report_stop(self, text: str) -> None:
        self.stop_sequence = text


@dataclass(slots=True)
class _Count:
    """Somebody on the event loop wants to know how long a request's prompt is."""

    request: GenerationRequest
    answer: asyncio.Future[int]
    steps: Generator[None, None, int] | None = None


class TokenEngine:
    """An ``Engine`` over one ``TokenBackend``.

    ``load`` makes the backend and ``family`` its family, both on the owner thread. ``describe``
    says what is served once it is loaded. ``max_running`` jobs share the machine, others wait in
    order; a job beyond ``max_open`` is refused with code ``rate_limit_exceeded`` and words that
    clients read a pause from.
    """

    def __init__(
        self,
        load: Callable[[], TokenBackend],
        family: FamilyFactory,
        *,
        name: str,
        describe: Describe | None = None,
        max_running: int = 8,
        max_open: int = MAX_OPEN,
        clock: Clock | None = None,
    ) -> None:
        self.clock: Clock = clock or MonotonicClock()
        self._load = load
        self._make_family = family
        self._describe = describe
        self._info = ModelInfo(name)
        self._max_running = max_running
        self._max_open = max_open
        self._num_open = 0
        self._incoming: SimpleQueue[Run | _Count | None] = SimpleQueue()
        self._outbox: deque[tuple[Run, Delta]] = deque()
        self._is_drain_scheduled = False
        self._current: Run | None = None
        self._turn = threading.Lock()
        self._backend: TokenBackend | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bell: Doorbell | None = None
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None
        self._is_closing = False

    # -- the event loop's side ---------------------------------------------------------

    def models(self) -> Sequence[ModelInfo]:
        """The one model; its size and window are known once ``start`` has returned."""
        return [self._info]

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
            with self._turn:
                if self._backend is not None and self._current is not None:
                    self._current.is_cancelled = True
                    self._backend.cancel()
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
        with self._turn:
            run.is_cancelled = True
            if self._current is run and self._backend is not None:
                self._backend.cancel()

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

    def _wake(self) -> None:
        assert self._loop is not None
        assert self._bell is not None
        if self._loop.is_closed():  # under a running engine: nobody listens any more
            self._give_up()
        elif self._outbox and not self._is_drain_scheduled:
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
            self._backend = backend
            pool = SequencePool(backend, self._is_current_cancelled)
            family = self._make_family(pool)
            if self._describe is not None:
                self._info = self._describe(backend)
        except Exception as error:  # noqa: BLE001 - handed to whoever awaits start()
            if pool is not None:
                pool.shutdown()
            self._end(ready, error)
            return
        self._on_loop(lambda: _settle(ready))
        try:
            self._serve(family, pool)
        finally:
            with self._turn:
                self._backend = None
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

    def _is_current_cancelled(self) -> bool:
        return self._current is not None and self._current.is_cancelled

    def _serve(self, family: ModelFamily, pool: SequencePool) -> None:
        running: deque[Run] = deque()
        waiting: deque[Run] = deque()
        counts: deque[_Count] = deque()
        is_open = True
        while is_open:
            is_idle = not (running or waiting or counts)
            is_open = self._receive(waiting, counts, is_idle=is_idle)
            for _ in range(len(counts)):
                count = counts.popleft()
                if self._count(count, family):
                    counts.append(count)
            self._drop_cancelled(waiting)
            while waiting and len(running) < self._max_running:
                running.append(waiting.popleft())
            for _ in range(len(running)):
                run = running.popleft()
                if self._step(run, family, pool):
                    running.append(run)
        for run in [*running, *waiting]:
            run.is_cancelled = True
            self._step(run, family, pool)
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

    def _receive(self, waiting: deque[Run], counts: deque[_Count], *, is_idle: bool) -> bool:
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

    def _drop_cancelled(self, waiting: deque[Run]) -> None:
        for run in [run for run in waiting if run.is_cancelled]:
            waiting.remove(run)
            self._finish(run, FinishReason.CANCELLED)

    def _step(self, run: Run, family: ModelFamily, pool: SequencePool) -> bool:
        """One step of one job; False when the job has ended, however it ended."""
        with self._turn:
            self._current = run
        try:
            if run.steps is None:
                run.started_ns = self.clock.now_ns()
                run.steps = family.generate(run.job())
            if run.is_cancelled:
                run.steps.close()
                self._finish(run, FinishReason.CANCELLED)
                return False
            run.wanted = self._advance(run, run.steps, pool)
        except StopIteration as end:
            self._finish(run, end.value or FinishReason.STOP)
        except Cancelled:
            self._finish(run, FinishReason.CANCELLED)
        except EngineError as error:
            self._finish(run, FinishReason.ERROR, error.code, str(error))
        except BaseException as error:  # noqa: BLE001 - one bad job must not end the others
            # A panic of a native library is no Exception, and no signal is handled in this thread.
            text = f"{type(error).__name__}: {error}"
            self._finish(run, FinishReason.ERROR, "server_error", text)
        else:
            self._wake()
            return True
        finally:
            with self._turn:
                self._current = None
        return False

    def _advance(
        self,
        run: Run,
        steps: Generator[Evaluate | None, Any, FinishReason],
        pool: SequencePool,
    ) -> Evaluate | None:
        """Answer what the last step asked for and take the next one."""
        wanted = run.wanted
        if wanted is None:
            return next(steps)
        before = now_ns()
        try:
            answer = pool.evaluate(wanted.sequence, wanted.tokens, all_logits=wanted.all_logits)
        except (Cancelled, EngineError) as problem:
            return steps.throw(problem)
        if run.prefilled_ns:  # the family counts the steps, and cannot see how long they take
            run.decode_ns += now_ns() - before
        return steps.send(answer)

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
