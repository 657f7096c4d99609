"""Reading an output while it grows changes no answer, and leaves little to read at its end."""

import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.collecting import Answer, ask, request, start
from tests.engine.families.chat_templates import FORGETTING, GROUPING, TOOLS_LAST, TRIMMING
from tests.engine.families.driving import drive, filed
from tests.engine.gguf_fixture import write_gguf
from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.families.chat_template import CHATML
from tightloop.engine.families.open_item import num_settled
from tightloop.engine.families.open_sequence import open_key
from tightloop.engine.interface import GenerationRequest, Node
from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.scripted_backend import ScriptedBackend
from tightloop.engine.sequence_pool import SequencePool
from tightloop.engine.token_engine import TokenEngine
from tightloop.protocol.deltas import FinishReason
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    user_message,
)
from tightloop.protocol.requests import FunctionTool

TOOL = FunctionTool("run", parameters={"type": "object", "properties": {}})
CALL = FunctionCall("c1", "run", '{"a": 1}')
UNSTABLE = (
    "{% for m in messages %}<|im_start|>{{ messages | length }}{{ m.role }}\n{{ m.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
AS_JSON = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | tojson }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LENGTH_FIRST = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content | length }}\n{{ m.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "trimming": TRIMMING,
    "grouping": GROUPING,
    "forgetting": FORGETTING,
    "tools last": TOOLS_LAST,
    "unstable": UNSTABLE,
    "as json": AS_JSON,
    "length first": LENGTH_FIRST,
}


def by_everything(held: Sequence[int]) -> int:
    """A token that depends on every one before it."""
    return 97 + zlib.crc32(b"".join(t.to_bytes(2, "little") for t in held)) % 26


def backend(
    template: str = CHATML, *, context_window: int = 4096, num_sequences: int = 8
) -> ScriptedBackend:
    return ScriptedBackend(
        by_everything,
        context_window=context_window,
        num_sequences=num_sequences,
        metadata={"tokenizer.chat_template": template},
    )


@asynccontextmanager
async def engine_of(model: ScriptedBackend | Path) -> AsyncIterator[TokenEngine]:
    def load() -> ScriptedBackend | LlamaCppBackend:
        if isinstance(model, Path):
            return LlamaCppBackend(model, num_sequences=8)
        return model

    engine = TokenEngine(load, ChatFamily, name="test")
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def parent_of(engine: TokenEngine, *calls: Item) -> Node:
    """A response that has made calls, warm in the engine."""
    asked = request("go", name="resp_1", tools=(TOOL,), max_output_tokens=4)
    await ask(engine, asked)
    return Node("resp_1", None, (*asked.items, *(calls or (CALL,))))


def below(parent: Node, *outputs: Item, name: str = "resp_2") -> GenerationRequest:
    return request(outputs, name=name, parent=parent, tools=(TOOL,), max_output_tokens=12)


def unrelated(number: int) -> GenerationRequest:
    return request(f"{number} quite another thing", name=f"x{number}", max_output_tokens=4)


async def hint(engine: TokenEngine, parent: Node, *outputs: Item) -> Answer:
    asked = below(parent, *outputs, name="hint")
    return await ask(engine, replace(asked, generate=False, is_open=True))


async def final(
    model: ScriptedBackend | Path, texts: Sequence[str], text: str
) -> tuple[str, int, int]:
    """The answer to an output, its input tokens, and how many of these were known."""
    async with engine_of(model) as engine:
        parent = await parent_of(engine)
        for known in texts:
            told = await hint(engine, parent, FunctionCallOutput("c1", known))
            assert told.finished.reason is FinishReason.STOP
        answer = await ask(engine, below(parent, FunctionCallOutput("c1", text)))
        usage = answer.finished.usage
        return answer.text, usage.input_tokens, usage.cached_tokens


WORDS = st.text(st.sampled_from("ab \n<|é\U0001f600"), max_size=60)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(TEMPLATES)),
    WORDS,
    st.lists(st.integers(0, 60), max_size=5),
    st.lists(WORDS, max_size=1),
)
async def test_hints_change_no_answer(
    name: str, text: str, ends: list[int], wrong: list[str]
) -> None:
    """Whatever the template, however the text is cut, and if some of it never comes."""
    template = TEMPLATES[name]
    texts = [text[:end] for end in sorted(ends)]
    texts[1:1] = wrong
    plain = await final(backend(template), [], text)
    hinted = await final(backend(template), texts, text)
    assert plain[:2] == hinted[:2]
    assert plain[2] <= hinted[2]


@pytest.mark.parametrize("name", ["chatml", "trimming", "grouping", "as json", "unstable"])
async def test_what_was_told_is_known_at_the_end(name: str) -> None:
    """But for the last word, and what follows the output."""
    text = "one line of many in it\n" * 40
    texts = [text[:end] for end in range(100, len(text) + 1, 100)]
    plain = await final(backend(TEMPLATES[name]), [], text)
    hinted = await final(backend(TEMPLATES[name]), texts, text)
    assert plain[:2] == hinted[:2]
    assert hinted[1] - hinted[2] < 120
    assert plain[1] - plain[2] > len(text)


async def test_each_token_is_evaluated_once() -> None:
    """However often the text is repeated in hints: the work is that of the text alone."""
    text = "a few words and more\n" * 30
    model = backend()
    async with engine_of(model) as engine:
        parent = await parent_of(engine)
        before = sum(size for _, size in model.evaluated)
        for end in range(20, len(text) + 1, 20):
            await hint(engine, parent, FunctionCallOutput("c1", text[:end]))
        assert sum(size for _, size in model.evaluated) - before < len(text) + 100
        assert model.num_open() == 2, "the parent's sequence, and one for all hints"
        await ask(engine, below(parent, FunctionCallOutput("c1", text)))
        assert model.num_open() == 2, "the answer goes on in the hints' own sequence"


async def test_a_text_that_changes_is_cut_back() -> None:
    text = "the same beginning of it\n" * 8
    model = backend()
    async with engine_of(model) as engine:
        parent = await parent_of(engine)
        await hint(engine, parent, FunctionCallOutput("c1", text + "wrong words " * 20))
        before = sum(size for _, size in model.evaluated)
        await hint(engine, parent, FunctionCallOutput("c1", text + "right words\n"))
        assert sum(size for _, size in model.evaluated) - before < 40
        answer = await ask(engine, below(parent, FunctionCallOutput("c1", text + "right words\n")))
        usage = answer.finished.usage
        assert usage.input_tokens - usage.cached_tokens < 60


async def test_a_hint_that_was_quite_wrong_does_no_harm() -> None:
    """What follows forks the parent, and the hint's sequence is the first to go."""
    model = backend(num_sequences=3)
    async with engine_of(model) as engine:
        parent = await parent_of(engine)
        await hint(engine, parent, FunctionCallOutput("c1", "wrong words " * 20))
        answer = await ask(engine, below(parent, FunctionCallOutput("c1", "right"), name="resp_2"))
        assert answer.finished.usage.cached_tokens > 20
        assert model.num_open() == 3
        again = Node("resp_2", parent, (FunctionCallOutput("c1", "right"), CALL))
        known = answer.finished.usage.input_tokens
        answer = await ask(engine, below(again, FunctionCallOutput("c1", "x"), name="resp_3"))
        assert answer.finished.usage.cached_tokens >= known - 20
        assert model.num_open() == 3


async def test_a_sequence_that_had_to_make_way_comes_back() -> None:
    """Others need the room while the tool runs; more is told, and the answer is the same."""
    text = "a few words and more\n" * 30
    async with engine_of(backend(num_sequences=3)) as engine:
        parent = await parent_of(engine)
        await hint(engine, parent, FunctionCallOutput("c1", text[:300]))
        for n in range(4):
            await ask(engine, unrelated(n))
        await hint(engine, parent, FunctionCallOutput("c1", text[:500]))
        for n in range(4, 8):
            await ask(engine, unrelated(n))
        answer = await ask(engine, below(parent, FunctionCallOutput("c1", text)))
    plain = await final(backend(), [], text)
    assert answer.text == plain[0]
    assert answer.finished.usage.input_tokens == plain[1]
    assert answer.finished.usage.cached_tokens > 500


async def test_where_all_must_be_rendered_small_steps_are_left_out() -> None:
    """The template shows the number of messages first: nothing of a conversation stays."""
    text = "a few words and more\n" * 20
    model = backend(UNSTABLE)
    async with engine_of(model) as engine:
        parent = await parent_of(engine)
        await hint(engine, parent, FunctionCallOutput("c1", text[:300]))
        before = len(model.evaluated)
        await hint(engine, parent, FunctionCallOutput("c1", text[:350]))
        assert len(model.evaluated) == before
        await hint(engine, parent, FunctionCallOutput("c1", text[:400]))
        assert len(model.evaluated) > before


@pytest.mark.parametrize("is_parent_gone", [False, True])
def test_the_request_that_follows_renders_only_what_is_new(is_parent_gone: bool) -> None:
    """Its prompt begins with tokens that are known, also where only the hints' sequence is left."""
    pool = SequencePool(backend(), lambda: False)
    family = ChatFamily(pool)
    asked = request("go", name="resp_1", tools=(TOOL,), max_output_tokens=4)
    drive(family, pool, asked)
    parent = Node("resp_1", None, (*asked.items, CALL))
    output = FunctionCallOutput("c1", "a few words and more\n" * 30)
    drive(family, pool, replace(below(parent, output), generate=False, is_open=True))
    if is_parent_gone:
        pool.drop("resp_1")
    draft = family._draft(below(parent, output))
    assert draft.known is not None
    assert len(draft.text) < len(output.output) + 200
    said = drive(family, pool, below(parent, output))
    evaluated, reused = said.counts["prefill"]
    assert reused > len(output.output)
    assert evaluated < 60


def test_what_a_hint_that_was_broken_off_has_evaluated_is_kept() -> None:
    """The next one goes on there."""
    model = backend()
    pool = SequencePool(model, lambda: False)
    family = ChatFamily(pool)
    asked = request("go", name="resp_1", tools=(TOOL,), max_output_tokens=4)
    drive(family, pool, asked)
    parent = Node("resp_1", None, (*asked.items, CALL))
    output = FunctionCallOutput("c1", "a few words and more\n" * 60)
    told = replace(below(parent, output), generate=False, is_open=True)
    assert drive(family, pool, told, num_steps=1).steps == [512]
    kept = filed(pool, open_key("resp_1"))
    assert len(kept.tokens) == model.num_tokens(kept.sequence)
    num_kept = len(kept.tokens)
    said = drive(family, pool, told)
    whole = filed(pool, open_key("resp_1"))
    assert whole is kept
    assert len(whole.tokens) == num_kept + sum(said.steps)
    assert sum(said.steps) < len(output.output) - 400
    fresh = drive(family, pool, below(parent, output)).counts["prefill"]
    assert fresh[0] < 60


async def test_outputs_of_several_calls() -> None:
    """Whole ones, then the one that grows; a custom tool's too."""
    second = CustomToolCall("c2", "say", "x")
    first = FunctionCallOutput("c1", "the first output\n" * 9)
    async with engine_of(backend()) as engine:
        parent = await parent_of(engine, CALL, second)
        await hint(engine, parent, first)
        grown = CustomToolCallOutput("c2", "the second one\n" * 9)
        await hint(engine, parent, first, CustomToolCallOutput("c2", grown.output[:50]))
        await hint(engine, parent, first, grown)
        answer = await ask(engine, below(parent, first, grown))
        usage = answer.finished.usage
        assert usage.input_tokens - usage.cached_tokens < 60


async def test_a_cancelled_hint_leaves_what_it_has_read() -> None:
    """The create comes in the middle of it, and its own prefill goes on from there."""
    text = "a few words and more\n" * 100
    model = backend()
    async with engine_of(model) as engine:
        parent = await parent_of(engine)
        asked = below(parent, FunctionCallOutput("c1", text), name="hint")
        told = start(engine, replace(asked, generate=False, is_open=True))
        assert told.generation is not None
        told.generation.cancel()
        answer = await ask(engine, below(parent, FunctionCallOutput("c1", text)))
        assert (await told.wait()).reason is FinishReason.CANCELLED
        plain = await final(backend(), [], text)
        assert answer.text == plain[0]
        assert answer.finished.usage.input_tokens == plain[1]


async def test_a_text_beyond_the_window_ends_in_an_error_and_keeps_what_there_is() -> None:
    text = "a few words and more\n" * 20
    async with engine_of(backend(context_window=800)) as engine:
        parent = await parent_of(engine)
        await hint(engine, parent, FunctionCallOutput("c1", text))
        told = await hint(engine, parent, FunctionCallOutput("c1", text * 3))
        assert told.finished.reason is FinishReason.ERROR
        assert told.finished.error_code == "context_length_exceeded"
        answer = await ask(engine, below(parent, FunctionCallOutput("c1", text)))
        usage = answer.finished.usage
        assert usage.input_tokens - usage.cached_tokens < 60


@pytest.mark.parametrize(
    "items", [(), (user_message("more"),), (FunctionCallOutput("c1", ""), user_message("x"))]
)
async def test_what_is_no_growing_output_is_left(items: tuple[Item, ...]) -> None:
    model = backend()
    async with engine_of(model) as engine:
        parent = await parent_of(engine)
        before = len(model.evaluated)
        told = await hint(engine, parent, *items)
        assert told.finished.reason is FinishReason.STOP
        orphan = replace(below(parent, FunctionCallOutput("c1", "x")), parent=None)
        await ask(engine, replace(orphan, generate=False, is_open=True))
        assert len(model.evaluated) == before


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", num_context=4096)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=8))
async def test_real_tokens_that_join_over_the_cuts(model: Path, sizes: list[int]) -> None:
    """A byte-pair tokeniser, whose tokens depend on what follows them."""
    text = "then the user said there, in the other one:\n\tthe  users\n" * 12
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    plain = await final(model, [], text)
    hinted = await final(model, [text[:end] for end in ends], text)
    assert plain[:2] == hinted[:2]
    told = min(ends[-1], len(text))
    assert hinted[2] >= plain[2] + told // 3 - 40


@given(st.text(st.sampled_from("ab \n\t\u00e9.")), st.text())
def test_what_is_settled_never_goes_back(text: str, more: str) -> None:
    data = text.encode()
    assert 0 <= num_settled(data) <= num_settled(data + more.encode())


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b"", 0), (b"one", 0), (b"one two", 3), (b"one \n two", 3), (b"one \n", 3), (b"x" * 100, 36)],
)
def test_settled(text: bytes, expected: int) -> None:
    assert num_settled(text) == expected
