"""The patch family: the policy's steps on the wire, live searches, and the bundled model itself."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.engine.collecting import Answer, ask
from tests.engine.families import recorded_pytest as recorded
from tests.engine.families.test_patchling_policy import clamp_run
from tightloop.engine.families.patchling import MAX_CANDIDATES, PatchlingFamily, num_passed_over
from tightloop.engine.families.v4a import reapply
from tightloop.engine.interface import GenerationRequest, Node, Sampling, TokenModel
from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.model_files import bundled_path
from tightloop.engine.patchling.report import FailingCase, TestReport
from tightloop.engine.patchling.search import Candidate, CandidateSearch, FunctionTooLong
from tightloop.engine.scripted_backend import ScriptedBackend, replying
from tightloop.engine.token_engine import TokenEngine
from tightloop.protocol.deltas import FinishReason, ToolCallDelta, ToolCallStarted
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    user_message,
)
from tightloop.protocol.requests import CustomTool, FunctionTool, Tool, ToolChoice

SHELL = FunctionTool("exec_command", "", {"properties": {"cmd": {"type": "string"}}})
TOOLS: tuple[Tool, ...] = (SHELL, CustomTool("apply_patch"))
REPAIRS = (
    ("value < low", "value > low"),
    ("value < low", "low < low"),
    ("return high", "return 7"),
)


class ListedSearch:
    """Proposes given replacements in order; reads the function once and decodes two tokens each."""

    def __init__(self, backend: TokenModel, source: str, report: TestReport) -> None:
        self.report = report
        self._backend = backend
        self._source = source
        self._left = list(REPAIRS)
        self._decoded = 0
        self._sequence = backend.open()
        backend.evaluate(self._sequence, backend.tokenize(source, special=False))

    def advance(self) -> bool:
        if not self._left or self._decoded == 2:
            return False
        self._backend.evaluate(self._sequence, [65])
        self._decoded += 1
        return True

    def next(self) -> Candidate | None:
        if not self._left:
            return None
        old, new = self._left.pop(0)
        self._decoded = 0
        return Candidate(0, (), (), self._source.replace(old, new), 0.0, 2)

    def close(self) -> None:
        self._backend.close(self._sequence)


class Conversation:
    """A client that plays against the engine and keeps the tree of responses."""

    def __init__(self, engine: TokenEngine, tools: tuple[Tool, ...] = TOOLS) -> None:
        self.engine = engine
        self.tools = tools
        self.files = {"pkg/mathy.py": recorded.SOURCE}
        self.node: Node | None = None
        self.items: tuple[Item, ...] = (user_message("fix the failing tests"),)
        self.count = 0
        self.is_hopeless = False
        self.choice: ToolChoice = "auto"
        self.prefix = f"r{id(self)}"

    async def turn(self) -> Answer:
        name = f"{self.prefix}_{self.count}"
        self.count += 1
        asked = GenerationRequest(
            name,
            "patchling",
            self.node,
            self.items,
            tools=self.tools,
            tool_choice=self.choice,
        )
        answer = await ask(self.engine, asked)
        if answer.calls:
            call, output = self.play(answer)
            self.node = Node(name, self.node, (*self.items, call))
            self.items = (output,)
        return answer

    def play(self, answer: Answer) -> tuple[Item, Item]:
        (name, body) = answer.calls[0]
        call_id = f"c{self.count}"
        if name == "apply_patch":
            is_custom = any(isinstance(tool, CustomTool) for tool in self.tools)
            patch = body if is_custom else json.loads(body)["input"]
            after = reapply(patch, self.files["pkg/mathy.py"])
            assert after is not None
            self.files["pkg/mathy.py"] = after
            done = "Success. Updated the following files:\nM pkg/mathy.py\n"
            if is_custom:
                return CustomToolCall(call_id, name, body), CustomToolCallOutput(call_id, done)
            return FunctionCall(call_id, name, body), FunctionCallOutput(call_id, done)
        return FunctionCall(call_id, name, body), FunctionCallOutput(call_id, self.shell(body))

    def shell(self, body: str) -> str:
        command = json.loads(body)["cmd"]
        if command.startswith("grep"):
            return "./pkg/mathy.py:4:def clamp(value, low, high):\n"
        if command.startswith("cat"):
            return self.files["pkg/mathy.py"]
        is_fixed = "return 7" in self.files["pkg/mathy.py"] and not self.is_hopeless
        return "6 passed in 0.1s" if is_fixed else clamp_run()

    async def until_end(self) -> list[Answer]:
        answers = [await self.turn()]
        while answers[-1].calls:
            answers.append(await self.turn())
        return answers


@asynccontextmanager
async def engine_with(
    *, num_sequences: int = 8, max_candidates: int = 8, backend: ScriptedBackend | None = None
) -> AsyncIterator[TokenEngine]:
    loaded = backend or ScriptedBackend(replying(b""), num_sequences=num_sequences)
    engine = TokenEngine(
        lambda: loaded,
        lambda pool: PatchlingFamily(
            pool, max_candidates=max_candidates, start_search=ListedSearch
        ),
        name="patchling",
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def patches(answers: Sequence[Answer]) -> list[Answer]:
    return [answer for answer in answers if answer.calls and answer.calls[0][0] == "apply_patch"]


async def test_a_repair_from_the_first_run_to_the_last() -> None:
    async with engine_with() as engine:
        conversation = Conversation(engine)
        answers = await conversation.until_end()
    commands = [answer.calls[0][0] for answer in answers[:-1]]
    assert commands[:4] == ["exec_command", "exec_command", "exec_command", "apply_patch"]
    assert answers[-1].text == "Fixed: `python -m pytest -q` passes now."
    assert answers[-1].finished.reason is FinishReason.STOP
    assert "return 7" in conversation.files["pkg/mathy.py"]
    assert "value < low" in conversation.files["pkg/mathy.py"]
    assert len(patches(answers)) == 3


async def test_a_demanded_call_is_made_or_the_demand_is_refused() -> None:
    """Never answered with words, as if it had been met."""
    async with engine_with() as engine:
        conversation = Conversation(engine)
        conversation.choice = "required"
        answers = await conversation.until_end()
        assert [answer.calls[0][0] for answer in answers[:-1]] == [
            call[0] for answer in await Conversation(engine).until_end() for call in answer.calls
        ]
        other = Conversation(engine)
        other.choice = "apply_patch"  # it wants to run the tests first
        answers.append(await other.turn())
    for answer in answers[-2:]:
        assert answer.deltas == [answer.finished]
        assert answer.finished.error_code == "unsupported_parameter"
        assert "it would say" in (answer.finished.error_message or "")


async def test_a_further_candidate_reads_nothing_again() -> None:
    async with engine_with() as engine:
        first, second, third = patches(await Conversation(engine).until_end())
    assert first.finished.timing is not None
    assert first.finished.timing.num_prefill_tokens > 50
    assert first.finished.timing.num_decode_steps == 2
    for later in (second, third):
        assert later.finished.timing is not None
        assert later.finished.timing.num_prefill_tokens == 0


async def test_an_evicted_search_is_rebuilt_and_skips_what_was_tried() -> None:
    backend = ScriptedBackend(replying(b""), num_sequences=1)
    async with engine_with(backend=backend) as engine:
        one, two = Conversation(engine), Conversation(engine)
        while not patches([await one.turn()]):
            pass
        for _ in range(2):
            while not patches([await two.turn()]):
                pass
        again = await one.until_end()
    assert again[-1].text.startswith("Fixed")
    timing = patches(again)[0].finished.timing
    assert timing is not None
    assert timing.num_prefill_tokens > 50


async def test_conversations_with_the_same_bug_do_not_share_a_search() -> None:
    async with engine_with() as engine:
        one, two = Conversation(engine), Conversation(engine)
        results = [await one.until_end(), await two.until_end()]
    assert [len(patches(result)) for result in results] == [3, 3]


async def test_exhausted_candidates_restore_the_file() -> None:
    async with engine_with(max_candidates=2) as engine:
        conversation = Conversation(engine)
        answers = await conversation.until_end()
    assert conversation.files["pkg/mathy.py"] == recorded.SOURCE
    assert "none of 2 attempts" in answers[-1].text
    undo = patches(answers)[-1].finished.timing
    assert undo is not None
    assert undo.num_decode_steps == 0


async def test_an_exhausted_search_restores_the_file_too() -> None:
    async with engine_with() as engine:
        conversation = Conversation(engine)
        conversation.is_hopeless = True
        answers = await conversation.until_end()
    assert conversation.files["pkg/mathy.py"] == recorded.SOURCE
    assert len(patches(answers)) == 4


async def test_the_patch_as_a_function_call() -> None:
    tools = (SHELL, FunctionTool("apply_patch", "", {"properties": {"input": {}}}))
    async with engine_with() as engine:
        answers = await Conversation(engine, tools).until_end()
    started = [
        d for answer in patches(answers) for d in answer.deltas if isinstance(d, ToolCallStarted)
    ]
    assert not any(call.is_custom for call in started)
    assert answers[-1].text.startswith("Fixed")


async def test_usage_counts_the_text_and_timing_the_network() -> None:
    async with engine_with() as engine:
        first = await Conversation(engine).turn()
    assert first.finished.usage.output_tokens == len('{"cmd": "python -m pytest -q"}')
    assert first.finished.timing is not None
    assert first.finished.timing.num_decode_steps == 0


async def test_input_is_all_the_text_and_what_the_parent_has_is_cached() -> None:
    """As ``count_input`` says; the network's own reading is in the timing only."""
    async with engine_with() as engine:
        conversation = Conversation(engine)
        before = 0
        for _ in range(4):
            new = GenerationRequest("count", "m", None, conversation.items)
            asked = GenerationRequest("count", "m", conversation.node, conversation.items)
            counted = await engine.count_input(asked)
            usage = (await conversation.turn()).finished.usage
            assert counted == usage.input_tokens > before
            assert usage.cached_tokens == counted - await engine.count_input(new)
            before = usage.input_tokens
    assert usage.cached_tokens > 0


async def test_another_conversation_s_words_are_not_cached() -> None:
    """They cost no counting, which is nobody's business."""
    async with engine_with() as engine:
        first, second = [(await Conversation(engine).turn()).finished.usage for _ in range(2)]
    assert first == second
    assert first.input_tokens > first.cached_tokens == 0


@pytest.mark.parametrize(("limit", "text"), [(1, "I"), (16, "I am patchling, "), (9999, None)])
async def test_a_text_ends_at_the_limit(limit: int, text: str | None) -> None:
    """One token is one byte here."""
    async with engine_with() as engine:
        asked = GenerationRequest("r", "m", None, (user_message("hello"),), max_output_tokens=limit)
        answer = await ask(engine, asked)
    if text is None:
        assert answer.finished.reason is FinishReason.STOP
        return
    assert answer.text == text
    assert answer.finished.reason is FinishReason.LENGTH
    assert answer.finished.usage.output_tokens == limit


async def test_a_call_that_is_cut_off_is_not_closed() -> None:
    """So that no client runs half a command or applies half a patch."""
    async with engine_with() as engine:
        asked = GenerationRequest(
            "r", "m", None, (user_message("fix the tests"),), tools=TOOLS, max_output_tokens=8
        )
        answer = await ask(engine, asked)
    assert answer.deltas == [
        ToolCallStarted(answer.deltas[0].call_id, "exec_command"),  # type: ignore[union-attr]
        ToolCallDelta('{"cmd": '),
        answer.finished,
    ]
    assert answer.finished.reason is FinishReason.LENGTH


async def test_a_conversation_beyond_the_window_is_refused() -> None:
    """With both numbers; one that just fits is answered."""
    engine = TokenEngine(
        lambda: ScriptedBackend(replying(b"")),
        lambda pool: PatchlingFamily(pool, window=100),
        name="patchling",
    )
    await engine.start()
    fits, not_fits = [
        await ask(engine, GenerationRequest(f"r{n}", "m", None, (user_message("x" * n),)))
        for n in (100, 101)
    ]
    await engine.close()
    assert fits.finished.reason is FinishReason.STOP
    assert fits.finished.usage.input_tokens == 100
    assert fits.finished.usage.cached_tokens == 0
    assert not_fits.finished.error_code == "context_length_exceeded"
    assert "101 tokens" in str(not_fits.finished.error_message)
    assert "is 100" in str(not_fits.finished.error_message)


async def test_a_function_that_is_too_long_is_said_so() -> None:
    def refuse(_backend: TokenModel, _source: str, _report: TestReport) -> ListedSearch:
        raise FunctionTooLong("99 lines of code")

    engine = TokenEngine(
        lambda: ScriptedBackend(replying(b"")),
        lambda pool: PatchlingFamily(pool, start_search=refuse),
        name="patchling",
    )
    await engine.start()
    answers = await Conversation(engine).until_end()
    await engine.close()
    assert answers[-1].text == "`clamp` is too long for this model (99 lines of code)."


def test_the_bundled_model_proposes_the_same_stepped_or_not() -> None:
    """Interrupting the search changes nothing but when other sessions get their turn."""
    backend = LlamaCppBackend(bundled_path(), num_context=2048, num_sequences=3)
    source = (
        "def clamp(value, low, high):\n    if value < low:\n        return low\n    return high"
    )
    report = TestReport((FailingCase("clamp(5, 0, 10)", "5", "10"),))
    plain = CandidateSearch(backend, source, report)
    stepped = CandidateSearch(backend, source, report)
    for _ in range(3):
        while stepped.advance():
            pass
        assert plain.next() == stepped.next()
    plain.close()
    stepped.close()
    backend.shutdown()


async def test_a_prewarm_does_nothing() -> None:
    async with engine_with() as engine:
        asked = GenerationRequest("r", "m", None, (user_message("fix"),), generate=False)
        answer = await ask(engine, asked)
    assert answer.deltas == [answer.finished]


def test_a_temperature_draws_another_rank() -> None:
    """The same seed draws the same; without a temperature the best comes first, as ever."""
    assert {num_passed_over(Sampling(seed=seed), 0) for seed in range(20)} == {0}
    drawn = [num_passed_over(Sampling(temperature=0.8, seed=seed), 0) for seed in range(200)]
    assert drawn == [num_passed_over(Sampling(temperature=0.8, seed=s), 0) for s in range(200)]
    assert set(range(MAX_CANDIDATES)) == set(drawn)
    assert sum(drawn) / len(drawn) > 1.0
    later = [num_passed_over(Sampling(temperature=0.8, seed=seed), 1) for seed in range(200)]
    assert later != drawn
