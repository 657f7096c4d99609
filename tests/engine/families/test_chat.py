"""The chat family: on a scripted backend for the corners, on llama.cpp for the real thing."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tests.engine.collecting import Answer, ask, node_of, request, start
from tests.engine.gguf_fixture import write_gguf
from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.families.prompts import forced_call
from tightloop.engine.interface import EngineError, Node, Sampling
from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.scripted_backend import IM_END, ScriptedBackend, replying
from tightloop.engine.token_engine import TokenEngine
from tightloop.protocol.deltas import FinishReason, TextDelta
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    Message,
    OpaquePart,
    TextPart,
)
from tightloop.protocol.requests import CustomTool, FunctionTool


@asynccontextmanager
async def scripted(
    reply: bytes | Sequence[int],
    *,
    context_window: int = 4096,
    metadata: dict[str, str] | None = None,
) -> AsyncIterator[TokenEngine]:
    backend = ScriptedBackend(
        replying(reply), context_window=context_window, metadata=metadata or {}
    )
    engine = TokenEngine(lambda: backend, ChatFamily, name="test")
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", num_context=2048)


@asynccontextmanager
async def real(model: Path, *, num_sequences: int = 8) -> AsyncIterator[TokenEngine]:
    engine = TokenEngine(
        lambda: LlamaCppBackend(model, num_sequences=num_sequences), ChatFamily, name="tiny"
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def test_characters_arrive_whole_although_tokens_are_bytes() -> None:
    text = "naïve 日本 \U0001f600"
    async with scripted(text.encode()) as engine:
        answer = await ask(engine, request())
    assert answer.text == text
    assert answer.finished.usage.output_tokens == len(text.encode())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 255), max_size=24))
async def test_any_bytes_give_text_that_can_be_sent(reply: list[int]) -> None:
    async with scripted(reply) as engine:
        answer = await ask(engine, request())
    assert answer.text == bytes(reply).decode("utf-8", "replace")
    assert all(d.text for d in answer.deltas if isinstance(d, TextDelta))


async def test_a_stop_string_across_tokens_ends_the_answer() -> None:
    async with scripted(b"one END two") as engine:
        answer = await ask(engine, request(sampling=Sampling(stop=("END",))))
    assert answer.text == "one "
    assert answer.finished.reason is FinishReason.STOP


async def test_a_stop_string_in_a_call_is_part_of_the_call() -> None:
    """Cut there, half a command would be run."""
    reply = (
        b'Now.<tool_call>\n{"name": "p", "arguments": {"input": "rm -r END"}}\n</tool_call> END!'
    )
    asked = request(tools=(CustomTool("p"),), sampling=Sampling(stop=("END",)))
    async with scripted(reply) as engine:
        answer = await ask(engine, asked)
    assert answer.calls == [("p", "rm -r END")]
    assert answer.text == "Now. "
    assert answer.finished.reason is FinishReason.TOOL_CALLS
    assert answer.finished.stop_sequence == "END"


async def test_max_output_tokens_ends_with_length() -> None:
    async with scripted(b"abcdefgh") as engine:
        answer = await ask(engine, request(max_output_tokens=3))
    assert answer.text == "abc"
    assert answer.finished.reason is FinishReason.LENGTH
    assert answer.finished.usage.output_tokens == 3


async def test_the_end_of_the_window_ends_with_length() -> None:
    async with scripted(b"x" * 500, context_window=64) as engine:
        answer = await ask(engine, request())
    assert answer.finished.reason is FinishReason.LENGTH
    assert answer.finished.usage.input_tokens + answer.finished.usage.output_tokens == 64


async def test_a_tool_call_is_a_tool_call() -> None:
    reply = b'<tool_call>\n{"name": "p", "arguments": {"input": "a\\nb"}}\n</tool_call>'
    async with scripted(reply) as engine:
        answer = await ask(engine, request(tools=(CustomTool("p"),)))
    assert answer.calls == [("p", "a\nb")]
    assert answer.finished.reason is FinishReason.TOOL_CALLS
    assert answer.text == ""


@pytest.mark.parametrize(
    ("choice", "reply"),
    [
        ("required", b' "run", "arguments": {"a": 1}}\n</tool_call>'),
        ("run", b' {"a": 1}}\n</tool_call>'),
    ],
)
async def test_a_required_call_is_begun_for_the_model(choice: str, reply: bytes) -> None:
    backend = ScriptedBackend(replying(reply, after=forced_call(choice).encode()[-11:], start=None))
    engine = TokenEngine(lambda: backend, ChatFamily, name="test")
    await engine.start()
    asked = request(tools=(FunctionTool("run"),), tool_choice=choice)
    answer = await ask(engine, asked)
    await engine.close()
    assert answer.calls == [("run", '{"a": 1}')]
    assert answer.finished.reason is FinishReason.TOOL_CALLS


async def test_text_and_calls_side_by_side_are_repeated_as_they_were_written() -> None:
    """By ChatML: what follows the answer is all that the next prompt must read."""
    call = '<tool_call>\n{{"name": "p", "arguments": {{"input": "{}"}}}}\n</tool_call>'
    reply = "Two.\n" + call.format("a") + "\n" + call.format("b")
    asked = request(tools=(CustomTool("p"),))
    calls = [CustomToolCall("c1", "p", "a"), CustomToolCall("c2", "p", "b")]
    async with scripted(reply.encode()) as engine:
        answer = await ask(engine, asked)
        assert answer.calls == [("p", "a"), ("p", "b")]
        said = Message("assistant", (TextPart("output_text", answer.text),))
        after = replace(asked, response_id="r2", items=(*asked.items, said, *calls))
        again = (await ask(engine, after)).finished.usage
    first = answer.finished.usage
    assert again.cached_tokens == first.input_tokens + first.output_tokens


async def test_the_prompt_stays_warm_when_no_tool_may_be_called() -> None:
    """A summary of the conversation is asked for like that, and must not read it all again."""
    tools = (FunctionTool("run"),)
    async with scripted(b"ok") as engine:
        first = request(name="r1", tools=tools)
        answer = await ask(engine, first)
        after = request(
            "sum up",
            name="r2",
            parent=node_of(first, answer),
            tools=tools,
            tool_choice="none",
        )
        none = await ask(engine, after)
    assert none.text == "ok"
    assert none.finished.usage.cached_tokens >= answer.finished.usage.input_tokens


async def test_without_tools_a_call_stays_text() -> None:
    reply = '<tool_call>\n{"name": "p", "arguments": {}}\n</tool_call>'
    async with scripted(reply.encode()) as engine:
        answer = await ask(engine, request())
    assert answer.text == reply
    assert answer.finished.reason is FinishReason.STOP


async def test_what_is_not_text_is_refused_by_name() -> None:
    image = OpaquePart("input_image", Raw(b'{"type":"input_image","image_url":"data:x"}'))
    asked = request([Message("user", (image,))])
    async with scripted(b"ok") as engine:
        answer = await ask(engine, asked)
        with pytest.raises(EngineError, match="an image") as refused:
            await engine.count_input(asked)
    assert refused.value.code == answer.finished.error_code == "unsupported_content"


async def test_no_reasoning_when_none_is_wanted() -> None:
    template = (
        "<|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}"
        "<think>\n\n</think>\n\n{% endif %}"
    )
    metadata = {"tokenizer.chat_template": template}
    async with scripted(b"ok", metadata=metadata) as engine:
        counts = [
            await engine.count_input(replace(request(), reasoning_effort=effort))
            for effort in (None, "low", "minimal", "none")
        ]
    assert counts[0] == counts[1] < counts[2] == counts[3]


async def test_reasoning_is_counted_apart() -> None:
    async with scripted(b"<think>hm</think>yes") as engine:
        answer = await ask(engine, request())
    assert (answer.reasoning, answer.text) == ("hm", "yes")
    assert answer.finished.usage.reasoning_tokens == len("hm</think>")


async def test_beginning_of_text_is_added_once() -> None:
    metadata = {"tokenizer.ggml.add_bos_token": "true", "tokenizer.ggml.bos_token_id": "258"}
    async with scripted(b"", metadata=metadata) as engine:
        plain = await ask(engine, request())
    own = metadata | {"tokenizer.chat_template": "{{ bos_token }}<|im_start|>assistant\n"}
    async with scripted(b"", metadata=own) as engine:
        templated = await ask(engine, request())
    assert plain.finished.usage.input_tokens == len("user\nhi\nassistant\n") + 3 + 1
    # Jinja drops the last newline of a template.
    assert templated.finished.usage.input_tokens == len("assistant") + 2


async def test_a_cancelled_response_keeps_what_it_evaluated() -> None:
    backend = ScriptedBackend(lambda _: ord("x"), context_window=100_000)
    engine = TokenEngine(lambda: backend, ChatFamily, name="test")
    await engine.start()
    answer = start(engine, request(name="r1"))
    await answer.first.wait()
    assert answer.generation is not None
    answer.generation.cancel()
    await answer.wait()
    again = await ask(engine, request(name="r2", max_output_tokens=2))
    await engine.close()
    assert again.finished.usage.cached_tokens == again.finished.usage.input_tokens - 1


async def test_real_llama_cpp_is_repeatable_and_reuses_its_prefix(model: Path) -> None:
    async with real(model) as engine:
        first = request("the user in the then", name="r1", max_output_tokens=12)
        one = await ask(engine, first)
        two = await ask(engine, request("the user in the then", name="r2", max_output_tokens=12))
        follow = await ask(
            engine,
            request("more", name="r3", parent=node_of(first, one), max_output_tokens=4),
        )
    assert one.text == two.text
    assert one.finished.usage.cached_tokens == 0
    assert two.finished.usage.cached_tokens == one.finished.usage.input_tokens - 1
    assert follow.finished.usage.cached_tokens >= one.finished.usage.input_tokens


async def test_two_sessions_interleave_on_real_llama_cpp_without_mixing(model: Path) -> None:
    async with real(model) as engine:
        alone = [
            (await ask(engine, request(text, name=text, max_output_tokens=20))).text
            for text in ("the one", "an other")
        ]
    async with real(model) as engine:
        answers: list[Answer] = [
            start(engine, request(text, name=text, max_output_tokens=20))
            for text in ("the one", "an other")
        ]
        for answer in answers:
            await answer.wait()
    assert alone == [answer.text for answer in answers]


async def test_a_long_prefill_lets_another_session_through(model: Path) -> None:
    """The short session ends while the long one is still prefilling."""
    async with real(model) as engine:
        long = start(engine, request("x y " * 480, name="long", max_output_tokens=1))
        short = start(engine, request("hi", name="short", max_output_tokens=1))
        await short.wait()
        was_first = not long.batches
        await long.wait()
    assert was_first
    assert long.finished.usage.input_tokens > 1024


class ReadingBackend(ScriptedBackend):
    """Remembers the longest text it was asked to tokenise since ``longest`` was set."""

    longest = 0

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """As the scripted backend does."""
        self.longest = max(self.longest, len(text))
        return super().tokenize(text, special=special)


@asynccontextmanager
async def reading(
    reply: bytes = b"yes", *, num_sequences: int = 8, saved_bytes: int = 1 << 20
) -> AsyncIterator[tuple[TokenEngine, ReadingBackend]]:
    backend = ReadingBackend(replying(reply), num_sequences=num_sequences)
    engine = TokenEngine(lambda: backend, ChatFamily, name="test", saved_bytes=saved_bytes)
    await engine.start()
    try:
        yield engine, backend
    finally:
        await engine.close()


async def test_a_continuation_reads_only_what_is_new() -> None:
    """Its tokens are those of the whole: asked again without a known parent, all are reused."""
    async with reading() as (engine, backend):
        first = request("x" * 1000, name="r1")
        node = node_of(first, await ask(engine, first))
        for name in ("r2", "r3"):
            backend.longest = 0
            follow = request("more", name=name, parent=node)
            answer = await ask(engine, follow)
            assert backend.longest < 200
            again = await ask(engine, replace(follow, parent=replace(node, id="gone")))
            assert backend.longest > 1000
            size = again.finished.usage.input_tokens
            assert (size, size - 1) == (
                answer.finished.usage.input_tokens,
                again.finished.usage.cached_tokens,
            )
            node = node_of(follow, answer)


async def test_a_call_that_the_template_writes_otherwise_is_evaluated_again() -> None:
    """What came before it is not."""
    reply = b'<tool_call>\n{"name":"p","arguments":{"input":"a"}}\n</tool_call>'
    tools = (CustomTool("p"),)
    async with reading(reply) as (engine, _):
        first = request("hi", name="r1", tools=tools)
        answer = await ask(engine, first)
        assert answer.calls == [("p", "a")]
        said = CustomToolCall("c", "p", "a")
        node = Node("r1", None, (*first.items, said))
        output = CustomToolCallOutput("c", "fine")
        follow = request([output], name="r2", parent=node, tools=tools)
        reused = (await ask(engine, follow)).finished.usage.cached_tokens
    same = len(b'<tool_call>\n{"name":')
    assert reused == answer.finished.usage.input_tokens + same


async def test_a_sibling_that_holds_more_than_the_parent_is_used() -> None:
    async with reading() as (engine, _):
        first = request("hi", name="r1")
        node = node_of(first, await ask(engine, first))
        await ask(engine, request("more", name="r2", parent=node))
        usage = (await ask(engine, request("more", name="r3", parent=node))).finished.usage
    assert usage.cached_tokens == usage.input_tokens - 1


async def test_a_parent_that_was_evicted_is_read_whole() -> None:
    """And evaluated whole, if it was not saved; if it was, only what is new is."""
    for saved_bytes, is_saved in ((0, False), (1 << 20, True)):
        async with reading(num_sequences=2, saved_bytes=saved_bytes) as (engine, backend):
            first = request("x" * 1000, name="r1")
            node = node_of(first, await ask(engine, first))
            await ask(engine, request("else", name="other"))
            await ask(engine, request("elsewhere", name="another"))
            backend.longest = 0
            follow = await ask(engine, request("more", name="r2", parent=node))
            assert follow.text == "yes"
            assert (backend.longest > 1000) is not is_saved
            assert (follow.finished.usage.cached_tokens > 1000) is is_saved
            assert engine.stats().num_restored == is_saved


async def test_counting_a_continuation_reads_only_what_is_new() -> None:
    async with reading() as (engine, backend):
        first = request("x" * 1000, name="r1")
        node = node_of(first, await ask(engine, first))
        follow = request("more", name="r2", parent=node)
        backend.longest = 0
        counted = await engine.count_input(follow)
        assert backend.longest < 200
        assert (await ask(engine, follow)).finished.usage.input_tokens == counted


def test_replying_ends_its_turn() -> None:
    assert replying(b"a")([IM_END]) == IM_END
