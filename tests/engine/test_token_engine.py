"""The engine's thread: turns, batches, cancel, refusals, errors and the end."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.engine.collecting import Answer, ask, node_of, request, start
from tests.engine.gguf_fixture import write_gguf
from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.interface import (
    EngineError,
    Evaluate,
    GenerationRequest,
    Job,
    ModelFamily,
    ModelInfo,
    Node,
)
from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.scripted_backend import ScriptedBackend, replying
from tightloop.engine.sequence_pool import SequencePool
from tightloop.engine.shelf import WarmStats
from tightloop.engine.token_engine import TokenEngine
from tightloop.protocol.deltas import (
    Delta,
    Finished,
    FinishReason,
    TextDelta,
    ToolCallDone,
    ToolCallStarted,
)
from tightloop.trace.clock import ManualClock


@asynccontextmanager
async def running(
    backend: ScriptedBackend,
    family: Callable[[SequencePool], ModelFamily] = ChatFamily,
    *,
    max_running: int = 8,
    max_open: int = 64,
) -> AsyncIterator[TokenEngine]:
    engine = TokenEngine(
        lambda: backend, family, name="test", max_running=max_running, max_open=max_open
    )
    await engine.start()
    try:
        yield engine
    finally:
        backend.release.set()
        await engine.close()


class Steps:
    """A family whose jobs do what their last message says, and note the order of steps."""

    name = "steps"

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def generate(self, job: Job) -> Generator[None, None, FinishReason]:
        name = job.request.response_id
        for number in range(3):
            self._log.append(f"{name}{number}")
            if name == "bad" and number == 1:
                raise ValueError("no such thing")
            job.emit(TextDelta(f"{number}"))
            yield
        return FinishReason.LENGTH

    def count_input(self, request: GenerationRequest) -> Generator[None, None, int]:
        if request.response_id == "bad":
            raise ValueError("no such thing")
        yield
        self._log.append("counted")
        return len(request.items)


class Evaluating:
    """A family whose jobs evaluate."""

    name = "evaluating"

    def __init__(self, pool: SequencePool) -> None:
        self.pool = pool

    def count_input(self, request: GenerationRequest) -> Generator[None, None, int]:
        yield
        return len(request.items)


async def test_input_is_counted_as_it_would_be_prefilled() -> None:
    async with running(ScriptedBackend(replying(b"hello"))) as engine:
        asked = request("hi", instructions="be brief")
        num_tokens = await engine.count_input(asked)
        answer = await ask(engine, asked)
    assert num_tokens == answer.finished.usage.input_tokens


async def test_a_count_does_not_wait_for_a_running_response() -> None:
    backend = ScriptedBackend(lambda _: ord("x"), context_window=100_000)
    async with running(backend) as engine:
        endless = start(engine, request())
        await endless.first.wait()
        assert await engine.count_input(request("hi")) > 0
        assert endless.generation is not None
        endless.generation.cancel()
        await endless.wait()


async def test_a_count_that_fails_says_so_and_spares_the_others() -> None:
    log: list[str] = []
    async with running(ScriptedBackend(replying(b"")), lambda _: Steps(log)) as engine:
        with pytest.raises(EngineError, match="ValueError: no such thing"):
            await engine.count_input(request(name="bad"))
        assert await engine.count_input(request(name="good")) == 1
    assert log == ["counted"]


class Panic(BaseException):
    """As a native library raises it."""


class Panicking(Steps):
    """One whose bad job, and whose bad count, end in a panic."""

    def generate(self, job: Job) -> Generator[None, None, FinishReason]:
        if job.request.response_id == "bad":
            raise Panic("native")
        return (yield from super().generate(job))

    def count_input(self, request: GenerationRequest) -> Generator[None, None, int]:
        if request.response_id == "bad":
            raise Panic("native")
        return (yield from super().count_input(request))


async def test_a_panic_of_native_code_ends_one_job_only() -> None:
    async with running(ScriptedBackend(replying(b"")), lambda _: Panicking([])) as engine:
        answer = await ask(engine, request(name="bad"))
        assert answer.finished.reason is FinishReason.ERROR
        assert answer.finished.error_message == "Panic: native"
        with pytest.raises(EngineError, match="Panic: native"):
            await engine.count_input(request(name="bad"))
        assert (await ask(engine, request(name="good"))).text == "012"


class Counting(Steps):
    """Its counts take steps for as long as nothing was generated."""

    def count_input(self, request: GenerationRequest) -> Generator[None, None, int]:
        while not self._log:
            yield
        return len(self._log)


async def test_a_long_count_lets_responses_on() -> None:
    async with running(ScriptedBackend(replying(b"")), lambda _: Counting([])) as engine:
        count = asyncio.ensure_future(engine.count_input(request()))
        given_up = asyncio.ensure_future(engine.count_input(request()))
        await asyncio.sleep(0)
        given_up.cancel()
        assert (await ask(engine, request(name="r"))).text == "012"
        assert await count > 0


async def test_no_count_before_the_start_nor_after_the_end() -> None:
    engine = TokenEngine(lambda: ScriptedBackend(replying(b"")), ChatFamily, name="test")
    with pytest.raises(EngineError, match="has not been started"):
        await engine.count_input(request())
    await engine.start()
    asked = asyncio.ensure_future(engine.count_input(request()))
    await asyncio.sleep(0)  # it is in the queue now, in front of the close
    await engine.close()
    assert await asked > 0
    with pytest.raises(EngineError, match="is closing") as refused:
        await engine.count_input(request())
    assert refused.value.code == "engine_unavailable"


async def test_an_answer_with_its_usage_and_marks() -> None:
    async with running(ScriptedBackend(replying(b"hello"))) as engine:
        answer = await ask(engine, request("hi"))
    assert answer.text == "hello"
    done = answer.finished
    assert done.reason is FinishReason.STOP
    assert done.usage.output_tokens == 5
    assert done.usage.input_tokens == len("user\nhi\nassistant\n") + 3
    timing = done.timing
    assert timing is not None
    marks = [timing.submitted_ns, timing.started_ns, timing.prefilled_ns, timing.first_delta_ns]
    assert sorted([*marks, timing.finished_ns]) == [*marks, timing.finished_ns]
    assert timing.num_decode_steps == 5
    assert timing.num_prefill_tokens == done.usage.input_tokens


async def test_jobs_take_turns() -> None:
    log: list[str] = []
    async with running(ScriptedBackend(replying(b"")), lambda _: Steps(log)) as engine:
        first, second = start(engine, request(name="a")), start(engine, request(name="b"))
        await first.wait()
        await second.wait()
    assert log.index("b0") < log.index("a2")
    assert first.text == second.text == "012"
    assert first.finished.reason is FinishReason.LENGTH


async def test_a_failing_job_ends_alone() -> None:
    log: list[str] = []
    async with running(ScriptedBackend(replying(b"")), lambda _: Steps(log)) as engine:
        bad, good = start(engine, request(name="bad")), start(engine, request(name="a"))
        await bad.wait()
        await good.wait()
        again = await ask(engine, request(name="c"))
    assert bad.finished.reason is FinishReason.ERROR
    assert bad.finished.error_code == "server_error"
    assert bad.finished.error_message == "ValueError: no such thing"
    assert good.text == again.text == "012"


async def test_cancel_while_decoding() -> None:
    async with running(ScriptedBackend(lambda _: ord("x"), context_window=100_000)) as engine:
        answer = start(engine, request())
        await answer.first.wait()
        assert answer.generation is not None
        answer.generation.cancel()
        done = await answer.wait()
        assert (await ask(engine, request(max_output_tokens=3))).text == "xxx"
        answer.generation.cancel()
    assert done.reason is FinishReason.CANCELLED
    assert done.usage.output_tokens > 0


async def test_cancel_inside_a_prefill_chunk_spares_the_others() -> None:
    backend = ScriptedBackend(replying(b"ok"), hold=True)
    async with running(backend) as engine:
        held = start(engine, request("a long prompt", name="a"))
        await asyncio.to_thread(backend.held.wait)
        other = start(engine, request("hi", name="b"))
        assert held.generation is not None
        held.generation.cancel()
        await held.wait()
        await other.wait()
    assert held.finished.reason is FinishReason.CANCELLED
    assert held.text == ""
    assert other.text == "ok"


async def test_cancel_of_a_waiting_job() -> None:
    backend = ScriptedBackend(replying(b"ok"), hold=True)
    async with running(backend, max_running=1) as engine:
        first = start(engine, request(name="a"))
        await asyncio.to_thread(backend.held.wait)
        second = start(engine, request(name="b"))
        assert second.generation is not None
        second.generation.cancel()
        backend.release.set()
        assert (await second.wait()).reason is FinishReason.CANCELLED
        assert (await first.wait()).reason is FinishReason.STOP


async def test_a_full_queue_refuses_with_a_code() -> None:
    backend = ScriptedBackend(replying(b"ok"), hold=True)
    async with running(backend, max_open=2) as engine:
        answers = [start(engine, request(name=f"r{n}")) for n in range(3)]
        assert not answers[2].batches, "refusals come in a later loop iteration"
        done = await answers[2].wait()
        backend.release.set()
        for answer in answers[:2]:
            assert (await answer.wait()).reason is FinishReason.STOP
        assert (await ask(engine, request(name="later"))).text == "ok"
    assert done.error_code == "rate_limit_exceeded"
    assert done.error_message is not None
    assert "2 responses" in done.error_message


async def test_close_ends_what_runs_and_releases_the_model() -> None:
    backend = ScriptedBackend(lambda _: ord("x"), context_window=100_000)
    async with running(backend) as engine:
        answer = start(engine, request())
        await answer.first.wait()
        await engine.close()
        assert answer.finished.reason is FinishReason.CANCELLED
        late = await ask(engine, request(name="late"))
    assert late.finished.error_code == "engine_unavailable"
    assert backend.is_shut_down


async def test_what_came_with_the_close_is_not_decoded_to_its_end() -> None:
    """Also where it is alone then, and would go on from token to token."""
    is_held, release = threading.Event(), threading.Event()

    class Holding(ChatFamily):
        def generate(self, job: Job) -> Generator[Evaluate | None, Any, FinishReason]:
            if job.request.response_id != "held":
                return (yield from super().generate(job))
            is_held.set()
            assert release.wait(timeout=30)
            return FinishReason.STOP

    engine = TokenEngine(lambda: ScriptedBackend(lambda _: ord("x")), Holding, name="test")
    await engine.start()
    start(engine, request(name="held"))
    assert await asyncio.to_thread(is_held.wait, 30)
    late = start(engine, request(name="late", max_output_tokens=50))
    closing = asyncio.ensure_future(engine.close())
    asyncio.get_running_loop().call_soon(release.set)  # after the close has begun
    await closing
    assert late.finished.reason is FinishReason.CANCELLED
    assert late.finished.usage.output_tokens < 5


async def test_submit_before_start_is_refused() -> None:
    engine = TokenEngine(lambda: ScriptedBackend(replying(b"")), ChatFamily, name="test")
    answer = await ask(engine, request())
    assert answer.finished.error_message == "the engine has not been started"
    await engine.close()


async def test_a_loader_that_fails_tells_start() -> None:
    def load() -> ScriptedBackend:
        raise EngineError("no model file at /x")

    engine = TokenEngine(load, ChatFamily, name="test")
    with pytest.raises(EngineError, match="no model file at /x"):
        await engine.start()
    await engine.close()


async def test_what_is_served_is_known_after_start() -> None:
    backend = ScriptedBackend(replying(b""), context_window=777)
    engine = TokenEngine(
        lambda: backend,
        ChatFamily,
        name="m",
        describe=lambda loaded: ModelInfo("m", "tiny", loaded.context_window),
    )
    assert engine.models()[0].context_window == 0
    await engine.start()
    await engine.start()
    assert engine.models()[0] == ModelInfo("m", "tiny", 777)
    await engine.close()


async def test_the_first_delta_and_a_closed_call_go_out_inside_their_step() -> None:
    """The family goes on only once the loop has seen them: a wait for the step's end would hang."""
    seen = {ToolCallStarted: threading.Event(), ToolCallDone: threading.Event()}

    class Announcing(Steps):
        def generate(self, job: Job) -> Generator[None, None, FinishReason]:
            job.emit(ToolCallStarted("c", "f"))
            assert seen[ToolCallStarted].wait(timeout=30)
            job.emit(ToolCallDone())
            assert seen[ToolCallDone].wait(timeout=30)
            yield
            return FinishReason.TOOL_CALLS

    async with running(ScriptedBackend(replying(b"")), lambda _: Announcing([])) as engine:
        answer = Answer()

        def sink(batch: Sequence[Delta]) -> None:
            answer(batch)
            for delta in batch:
                if isinstance(delta, ToolCallStarted | ToolCallDone):
                    seen[type(delta)].set()

        engine.submit(request(), sink)
        done = await answer.wait()
    assert done.reason is FinishReason.TOOL_CALLS
    assert answer.batches[0] == [ToolCallStarted("c", "f")]


async def test_what_follows_the_first_delta_does_not_wait_for_the_next_step() -> None:
    """That step may be long, and the clock stands still: no pause has passed since the first wake-up."""
    seen = {name: threading.Event() for name in "ab"}

    class Patient(ScriptedBackend):
        def evaluate(
            self, sequence: int, tokens: Sequence[int], *, all_logits: bool = False
        ) -> NDArray[np.float32]:
            assert seen["b"].wait(timeout=30)
            return super().evaluate(sequence, tokens, all_logits=all_logits)

    class Following(Evaluating):
        def generate(self, job: Job) -> Generator[Evaluate | None, Any, FinishReason]:
            job.emit(TextDelta("a"))
            assert seen["a"].wait(timeout=30)
            job.emit(TextDelta("b"))
            yield Evaluate(self.pool.open(), [1])
            return FinishReason.STOP

    backend = Patient(replying(b""))
    engine = TokenEngine(lambda: backend, Following, name="test", clock=ManualClock(1))
    await engine.start()
    answer = Answer()

    def sink(batch: Sequence[Delta]) -> None:
        answer(batch)
        for delta in batch:
            if isinstance(delta, TextDelta):
                seen[delta.text].set()

    engine.submit(request(), sink)
    done = await answer.wait()
    await engine.close()
    assert (done.reason, answer.text) == (FinishReason.STOP, "ab")


async def test_while_no_time_passes_the_loop_is_woken_three_times() -> None:
    """For the first delta, the one after it and the last: what comes in between is one batch."""
    backend = ScriptedBackend(replying(b"many words in no time"))
    engine = TokenEngine(lambda: backend, ChatFamily, name="test", clock=ManualClock(1))
    await engine.start()
    answer = await ask(engine, request())
    await engine.close()
    assert answer.text == "many words in no time"
    assert len(answer.batches) <= 3


async def test_follow_ups_reuse_the_common_prefix() -> None:
    backend = ScriptedBackend(replying(b"fine"))
    async with running(backend) as engine:
        first = request("hello there", name="r1")
        answer = await ask(engine, first)
        second = request("and now", name="r2", parent=node_of(first, answer))
        follow = await ask(engine, second)
    assert follow.finished.usage.cached_tokens == answer.finished.usage.input_tokens + 4
    new = len("\n") + len("user\nand now\n") + len("assistant\n") + 4
    assert follow.finished.usage.input_tokens == follow.finished.usage.cached_tokens + new


async def test_prewarm_leaves_one_token_to_prefill() -> None:
    async with running(ScriptedBackend(replying(b"fine"))) as engine:
        warm = await ask(engine, request("hello", name="r1", generate=False))
        real = await ask(engine, request("hello", name="r2"))
    assert warm.deltas == [warm.finished]
    assert warm.finished.usage.output_tokens == 0
    assert real.finished.usage.cached_tokens == warm.finished.usage.input_tokens - 1
    assert real.finished.timing is not None
    assert real.finished.timing.num_prefill_tokens == 1


async def test_a_continuation_waits_for_the_prewarm_that_is_being_read() -> None:
    """Clients are told of a prewarm's end at once, and then nothing is read twice."""
    async with running(ScriptedBackend(replying(b"fine"))) as engine:
        first = request("hello " * 400, name="r1", generate=False)
        warm = start(engine, first)
        real = start(engine, request("go on", name="r2", parent=Node("r1", None, first.items)))
        await warm.wait()
        await real.wait()
    assert real.finished.usage.cached_tokens >= warm.finished.usage.input_tokens - 20


async def test_many_conversations_share_few_sequences() -> None:
    """Remembered conversations make room; a live one never fails."""
    backend = ScriptedBackend(replying(b"ok"), num_sequences=3)
    async with running(backend, max_running=2) as engine:
        answers = [start(engine, request(f"talk {n}", name=f"r{n}")) for n in range(10)]
        for answer in answers:
            await answer.wait()
    assert {answer.text for answer in answers} == {"ok"}


async def test_cells_are_taken_from_idle_sequences() -> None:
    backend = ScriptedBackend(replying(b"ok"), num_cells=400, context_window=300)
    async with running(backend) as engine:
        for n in range(4):
            answer = await ask(engine, request(f"{n}" * 200, name=f"r{n}"))
            assert answer.text == "ok"


async def test_a_prompt_longer_than_the_window_is_refused_with_both_sizes() -> None:
    async with running(ScriptedBackend(replying(b"ok"), context_window=50)) as engine:
        answer = await ask(engine, request("x" * 100))
    assert answer.finished.error_code == "context_length_exceeded"
    assert answer.finished.error_message is not None
    assert "119 tokens" in answer.finished.error_message
    assert "50" in answer.finished.error_message


@pytest.mark.parametrize("decodes", [False, True])
def test_a_loop_that_closes_under_a_running_engine_ends_its_thread(*, decodes: bool) -> None:
    """Nobody could be told any more, and the model must not stay in memory."""
    ended = threading.Event()

    class Endless(Evaluating):
        def generate(self, job: Job) -> Generator[Evaluate | None, Any, FinishReason]:
            step = Evaluate(self.pool.open(), [1]) if decodes else None
            try:
                while True:
                    job.emit(TextDelta("x"))
                    yield step
            finally:
                ended.set()

    backend = ScriptedBackend(lambda _: 0, context_window=1 << 40, num_cells=1 << 40)
    engine = TokenEngine(lambda: backend, Endless, name="test")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(engine.start())
    first = loop.create_future()
    engine.submit(request(), lambda _: None if first.done() else first.set_result(None))
    loop.run_until_complete(first)
    loop.close()
    assert ended.wait(timeout=30)


async def test_interactive_responses_go_before_background_ones() -> None:
    """However long the latter have waited."""
    backend = ScriptedBackend(replying(b"ok"), hold=True)
    order: list[str] = []

    class Noting(Answer):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def __call__(self, batch: Sequence[Delta]) -> None:
            super().__call__(batch)
            if isinstance(batch[-1], Finished):
                order.append(self.name)

    async with running(backend, max_running=1) as engine:
        answers = [Noting(name) for name in ("first", "batch", "asked")]
        engine.submit(request(name="r1"), answers[0])
        await asyncio.to_thread(backend.held.wait)
        engine.submit(replace(request(name="r2"), is_background=True), answers[1])
        engine.submit(request(name="r3"), answers[2])
        backend.release.set()
        for answer in answers:
            await answer.wait()
    assert order == ["first", "asked", "batch"]


@asynccontextmanager
async def llama(path: Path, *, num_sequences: int = 16) -> AsyncIterator[TokenEngine]:
    """The chat family on real llama.cpp, with a random-weight model."""
    engine = TokenEngine(
        lambda: LlamaCppBackend(path, num_context=8192, num_sequences=num_sequences),
        ChatFamily,
        name="test",
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def test_sessions_that_share_steps_say_what_they_say_alone(tmp_path: Path) -> None:
    """On real llama.cpp: kernels for several sequences round differently, so only the beginning."""
    model = write_gguf(tmp_path / "tiny.gguf")
    questions = [request(f"question {n}" * n, name=f"r{n}", max_output_tokens=40) for n in range(6)]
    async with llama(model) as engine:
        alone = [(await ask(engine, question)).text for question in questions]
    async with llama(model) as engine:
        answers = [start(engine, question) for question in questions]
        for answer in answers:
            await answer.wait()
    assert [text[:20] for text in alone] == [answer.text[:20] for answer in answers]


async def test_conversations_that_made_way_go_on_where_they_were(tmp_path: Path) -> None:
    """Six conversations on three sequences: none is read again, and each goes on as with room."""
    model = write_gguf(tmp_path / "tiny.gguf")
    texts: dict[int, list[str]] = {}
    for num_sequences in (3, 16):
        async with llama(model, num_sequences=num_sequences) as engine:
            nodes = []
            for n in range(6):
                first = request(f"conversation {n} " * 8, name=f"r{n}", max_output_tokens=8)
                nodes.append(node_of(first, await ask(engine, first)))
            answers = [
                await ask(engine, request("more", name=f"f{n}", parent=node, max_output_tokens=8))
                for n, node in enumerate(nodes)
            ]
            texts[num_sequences] = [answer.text for answer in answers]
            for answer in answers:
                assert answer.finished.usage.cached_tokens > 80
            stats = engine.stats()
            assert (stats.num_restored >= 4) is (num_sequences == 3)
            assert stats.num_evicted >= stats.num_saved >= stats.num_restored
    assert texts[3] == texts[16]


async def test_there_are_no_figures_of_an_engine_that_was_not_started() -> None:
    engine = TokenEngine(lambda: ScriptedBackend(replying(b"")), ChatFamily, name="test")
    assert engine.stats() == WarmStats()
