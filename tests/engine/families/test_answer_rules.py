"""What a request demands of the answer holds, whatever the model would rather say."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.collecting import Answer, ask, request
from tests.engine.families.random_backend import RandomBackend
from tests.engine.families.recorded_grammars import APPLY_PATCH, PATCH
from tests.engine.families.schema_strategies import Described, objects
from tests.engine.gguf_fixture import write_gguf
from tightloop.engine.families.answer_rules import constraint_for
from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.families.grammars import GrammarCompiler, Source
from tightloop.engine.interface import EngineError, GenerationRequest, Sampling, TokenBackend
from tightloop.engine.llama_cpp.backend import LlamaCppBackend
from tightloop.engine.scripted_backend import IM_START, ScriptedBackend, replying
from tightloop.engine.token_engine import TokenEngine
from tightloop.protocol.deltas import FinishReason
from tightloop.protocol.output_format import OutputFormat
from tightloop.protocol.requests import CustomTool, FunctionTool, Tool, ToolChoice

PATCH_TOOL = CustomTool("apply_patch", grammar=APPLY_PATCH)
CODE_TOOL = CustomTool("code", grammar=r'[a-f"\\\n]{3}[0-9]{2}(foo|"bar\n")', syntax="regex")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["a", 'b"\n']},
        "flags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        "size": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["kind", "flags", "size"],
    "additionalProperties": False,
}
RUN_TOOL = FunctionTool("run", parameters=SCHEMA, strict=True)
FORMAT = OutputFormat("json_schema", SCHEMA, "thing")
THINKING_TEMPLATE = {
    "tokenizer.chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n<think>\n"
}


@asynccontextmanager
async def serving(load: Callable[[], TokenBackend]) -> AsyncIterator[TokenEngine]:
    engine = TokenEngine(load, ChatFamily, name="test")
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def answer_of(
    backend: ScriptedBackend,
    *,
    tools: tuple[Tool, ...] = (),
    choice: ToolChoice = "auto",
    wanted: OutputFormat | None = None,
    seed: int | None = None,
    is_parallel: bool = True,
    max_output_tokens: int | None = None,
) -> Answer:
    sampling = Sampling() if seed is None else Sampling(temperature=1.0, seed=seed)
    asked = request(
        tools=tools, tool_choice=choice, sampling=sampling, max_output_tokens=max_output_tokens
    )
    asked = replace(asked, output_format=wanted, parallel_tool_calls=is_parallel)
    async with serving(lambda: backend) as engine:
        return await ask(engine, asked)


def replying_with(text: str, metadata: Mapping[str, str] | None = None) -> ScriptedBackend:
    return ScriptedBackend(replying(text.encode()), metadata=metadata)


def is_thing(text: str) -> bool:
    """Whether the text is what ``SCHEMA`` describes, judged without the compiler."""
    value = json.loads(text)
    return (
        text == text.strip()
        and set(value) == {"kind", "flags", "size"}
        and value["kind"] in ("a", 'b"\n')
        and len(value["flags"]) <= 3
        and all(isinstance(flag, bool) for flag in value["flags"])
        and isinstance(value["size"], int)
        and 0 <= value["size"] <= 99
    )


def call_of(answer: Answer) -> tuple[str, str]:
    (call,) = answer.calls
    assert answer.text == ""
    assert answer.finished.reason is FinishReason.TOOL_CALLS, answer.finished
    return call


# ---------------------------------------------------------------------- noise, any number of seeds


@pytest.mark.parametrize("seed", range(12))
async def test_noise_makes_a_patch(seed: int) -> None:
    name, text = call_of(
        await answer_of(RandomBackend(seed), tools=(PATCH_TOOL,), choice="apply_patch", seed=seed)
    )
    assert name == "apply_patch"
    assert PATCH.fullmatch(text), text


@pytest.mark.parametrize("seed", range(6))
async def test_noise_matches_a_regular_expression(seed: int) -> None:
    _, text = call_of(await answer_of(RandomBackend(seed), tools=(CODE_TOOL,), choice="code"))
    assert text[5:] in ("foo", '"bar\n"')
    assert set(text[:3]) <= set('abcdef"\\\n')
    assert text[3:5].isdecimal()


@pytest.mark.parametrize("seed", range(6))
async def test_noise_matches_a_schema(seed: int) -> None:
    answer = await answer_of(RandomBackend(seed), wanted=FORMAT, seed=seed)
    assert is_thing(answer.text)
    assert answer.finished.reason is FinishReason.STOP


@settings(max_examples=25, deadline=None)
@given(described=objects(), seed=st.integers(0, 1 << 16), is_call=st.booleans())
async def test_noise_matches_any_schema(described: Described, seed: int, is_call: bool) -> None:
    """As a text and as the arguments of a call, unless it was cut."""
    backend = RandomBackend(seed, favoured=b'\\"}]', bonus=4.0)
    if is_call:
        tool = FunctionTool("run", parameters=described.schema, strict=True)
        answer = await answer_of(
            backend, tools=(tool,), choice="run", seed=seed, max_output_tokens=500
        )
    else:
        wanted = OutputFormat("json_schema", described.schema, "thing")
        answer = await answer_of(backend, wanted=wanted, seed=seed, max_output_tokens=500)
    assert answer.finished.reason is not FinishReason.ERROR, answer.finished
    if answer.finished.reason is not FinishReason.LENGTH:
        text = call_of(answer)[1] if is_call else answer.text
        assert described.holds(json.loads(text)), text


@pytest.mark.parametrize("seed", range(6))
async def test_noise_is_a_json_object(seed: int) -> None:
    backend = RandomBackend(seed, favoured=b'"}', bonus=6.0)
    answer = await answer_of(backend, wanted=OutputFormat("json_object"), seed=seed)
    assert isinstance(json.loads(answer.text), dict)


@pytest.mark.parametrize("seed", range(8))
async def test_noise_that_must_call_calls_a_tool_that_is_there(seed: int) -> None:
    tools = (RUN_TOOL, CODE_TOOL, FunctionTool("any"), CustomTool("note"))
    backend = RandomBackend(seed, favoured=b'"}', bonus=6.0)
    answer = await answer_of(backend, tools=tools, choice="required", seed=seed, is_parallel=False)
    name, text = call_of(answer)
    assert name in {tool.name for tool in tools}
    if name in ("run", "any"):
        assert isinstance(json.loads(text), dict)
    assert name != "run" or is_thing(text)


async def test_calls_side_by_side_are_all_legal() -> None:
    backend = RandomBackend(3, favoured=b"\n", bonus=12.0)  # a newline goes on to the next call
    answer = await answer_of(
        backend, tools=(RUN_TOOL,), choice="required", seed=3, max_output_tokens=700
    )
    assert len(answer.calls) > 2
    assert all(is_thing(text) for _, text in answer.calls[:-1])
    assert answer.finished.reason is FinishReason.LENGTH


# ---------------------------------------------------------------------- real llama.cpp


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", num_context=2048, width=32)


async def test_random_weights_obey(model: Path) -> None:
    """Real logits, real tokens of several bytes; a cut patch is the beginning of one."""
    patches = GrammarCompiler().matcher(Source("lark", APPLY_PATCH, "patch"))
    async with serving(lambda: LlamaCppBackend(model)) as engine:
        for seed in range(4):
            hot = Sampling(temperature=1.5, seed=seed)
            code = request(name="c", tools=(CODE_TOOL,), tool_choice="code", sampling=hot)
            run = request(name="r", tools=(RUN_TOOL,), tool_choice="required", sampling=hot)
            thing = replace(request(name="t", sampling=hot), output_format=FORMAT)
            patch = request(
                name="p",
                tools=(PATCH_TOOL,),
                tool_choice="apply_patch",
                sampling=hot,
                max_output_tokens=200,
            )
            assert call_of(await ask(engine, code))[1][5:] in ("foo", '"bar\n"')
            once = replace(run, parallel_tool_calls=False)
            assert is_thing(call_of(await ask(engine, once))[1])
            assert is_thing((await ask(engine, thing)).text)
            answer = await ask(engine, patch)
            ((_, text),) = answer.calls
            if answer.finished.reason is FinishReason.TOOL_CALLS:
                assert PATCH.fullmatch(text)
            else:
                assert answer.finished.reason is FinishReason.LENGTH
                assert patches.fresh().take(text.encode()) == len(text.encode())


# ---------------------------------------------------------------------- a model that means well


async def test_a_model_that_writes_what_is_wanted_is_not_disturbed() -> None:
    patch = '*** Begin Patch\n*** Add File: a "b".py\n+x = "\\n\tä"\n*** End Patch\n'
    body = json.dumps({"input": patch}, ensure_ascii=False)
    call = f'<tool_call>\n{{"name": "apply_patch", "arguments": {body}}}\n</tool_call>'
    answer = await answer_of(replying_with(f"Let me see. {call}"), tools=(PATCH_TOOL,))
    assert answer.calls == [("apply_patch", patch)]
    assert answer.text == "Let me see. "
    assert answer.finished.reason is FinishReason.TOOL_CALLS


async def test_text_is_free_while_tools_are_strict() -> None:
    said = "no <tool_cal> here, 1 < 2"
    answer = await answer_of(replying_with(said), tools=(RUN_TOOL,))
    assert answer.text == said
    assert answer.finished.reason is FinishReason.STOP


async def test_reasoning_comes_before_a_forced_call() -> None:
    backend = replying_with(
        'no <tool_call> yet</think>\n\n<tool_call>\n{"name": "run", "arguments": '
        '{"kind": "a", "flags": [], "size": 1}}\n</tool_call>',
        THINKING_TEMPLATE,
    )
    backend.next_token = replying(
        b"no <tool_call> yet</think>\n\n<tool_call>\n"
        b'{"name": "run", "arguments": {"kind": "a", "flags": [], "size": 1}}\n</tool_call>',
        after=b"assistant\n<think>",
    )
    answer = await answer_of(backend, tools=(RUN_TOOL,), choice="required")
    assert answer.reasoning == "no <tool_call> yet"
    assert call_of(answer) == ("run", '{"kind": "a", "flags": [], "size": 1}')


async def test_reasoning_comes_before_a_formatted_text() -> None:
    """Line ends between the two belong to neither."""
    backend = replying_with("", THINKING_TEMPLATE)
    backend.next_token = replying(b'hm</think>\n\n{"a": 1}\n\n', after=b"assistant\n<think>")
    answer = await answer_of(backend, wanted=OutputFormat("json_object"))
    assert (answer.reasoning, answer.text) == ("hm", '{"a": 1}')
    assert answer.finished.reason is FinishReason.STOP


async def test_a_formatted_answer_may_be_a_call_instead() -> None:
    call = '<tool_call>\n{"name": "any", "arguments": {"a": [1]}}\n</tool_call>'
    answer = await answer_of(replying_with(call), tools=(FunctionTool("any"),), wanted=FORMAT)
    assert call_of(answer) == ("any", '{"a": [1]}')


async def test_no_tag_inside_a_formatted_text() -> None:
    """The reader of calls would take it for a call."""
    wanted = OutputFormat("json_schema", {"type": "string"}, "s")
    reply = '"a<tool_call>{}"'
    answer = await answer_of(replying_with(reply), wanted=wanted, max_output_tokens=40)
    assert "<tool_call>" not in answer.text
    assert answer.text.startswith('"a<tool_call')


async def test_control_tokens_are_no_text() -> None:
    """Their names would match inside a string, but they are not what they spell."""
    backend = RandomBackend(1, favoured=b'"', bonus=2.0)
    backend.favour(IM_START, 30.0)
    wanted = OutputFormat("json_schema", {"type": "string", "minLength": 5}, "s")
    answer = await answer_of(backend, wanted=wanted)
    assert "im_start" not in answer.text
    assert len(json.loads(answer.text)) >= 5


async def test_nothing_follows_a_complete_answer() -> None:
    answer = await answer_of(
        replying_with('{"a": 1} and so on'), wanted=OutputFormat("json_object")
    )
    assert answer.text == '{"a": 1}'
    assert answer.finished.reason is FinishReason.STOP
    assert answer.finished.usage.output_tokens == len('{"a": 1}')


async def test_an_end_that_comes_too_soon_is_put_off() -> None:
    wanted = OutputFormat("json_schema", {"const": "yes"}, "s")
    answer = await answer_of(replying_with('"y'), wanted=wanted)
    assert answer.text == '"yes"'


async def test_an_answer_that_is_cut_is_incomplete() -> None:
    answer = await answer_of(replying_with('{"a": "bcd"}'), wanted=FORMAT, max_output_tokens=5)
    assert answer.finished.reason is FinishReason.LENGTH
    whole = await answer_of(
        replying_with('{"a": 1}'), wanted=OutputFormat("json_object"), max_output_tokens=8
    )
    assert whole.finished.reason is FinishReason.STOP


async def test_one_call_when_they_may_not_run_side_by_side() -> None:
    one = '<tool_call>\n{"name": "any", "arguments": {}}\n</tool_call>\n'
    both = await answer_of(replying_with(one * 2), tools=(FunctionTool("any"),))
    single = await answer_of(
        replying_with(one * 2), tools=(FunctionTool("any"),), is_parallel=False
    )
    assert len(both.calls) == 2
    assert call_of(single) == ("any", "{}")


async def test_no_call_when_none_is_allowed() -> None:
    call = '<tool_call>\n{"name": "any", "arguments": {}}\n</tool_call>'
    backend = replying_with(call)
    answer = await answer_of(
        backend, tools=(FunctionTool("any"),), choice="none", max_output_tokens=60
    )
    assert answer.calls == []
    assert answer.finished.reason is not FinishReason.TOOL_CALLS


# ---------------------------------------------------------------------- what cannot be done


@pytest.mark.parametrize(
    ("tool", "code", "reason"),
    [
        (CustomTool("bad", grammar="start: nothing"), "invalid_grammar", "unknown name"),
        (CustomTool("bad", grammar="a(b", syntax="regex"), "invalid_grammar", "unclosed group"),
        (
            FunctionTool("bad", parameters={"type": "strange"}, strict=True),
            "invalid_json_schema",
            "strange",
        ),
        (
            FunctionTool("bad", parameters={"type": ["string", "object"]}, strict=True),
            "invalid_json_schema",
            "always an 'object'",
        ),
    ],
)
async def test_a_grammar_that_cannot_be_compiled_is_named(
    tool: Tool, code: str, reason: str
) -> None:
    answer = await answer_of(replying_with("hi"), tools=(tool,))
    done = answer.finished
    assert done.reason is FinishReason.ERROR
    assert done.error_code == code
    assert "'bad'" in (done.error_message or "")
    assert reason in (done.error_message or "")


async def test_one_name_in_two_namespaces_is_refused_also_where_nothing_is_demanded() -> None:
    tools = (FunctionTool("find", namespace="a"), FunctionTool("find", namespace="b"))
    done = (await answer_of(replying_with("hi"), tools=tools)).finished
    assert (done.reason, done.error_code) == (FinishReason.ERROR, "invalid_value")


async def test_a_grammar_without_an_end_ends_with_the_room() -> None:
    tool = CustomTool("loop", grammar='start: ("x" | "y") start')
    answer = await answer_of(
        replying_with("hi"), tools=(tool,), choice="loop", max_output_tokens=50
    )
    assert answer.finished.reason is FinishReason.LENGTH


async def test_a_grammar_that_cannot_be_followed_is_an_error() -> None:
    """Forced letters without an end exhaust the matcher."""
    tool = CustomTool("loop", grammar='start: "x" start')
    done = (await answer_of(replying_with("hi"), tools=(tool,), choice="loop")).finished
    assert done.reason is FinishReason.ERROR
    assert done.error_code == "invalid_grammar"
    assert "tool 'loop' is too complex" in (done.error_message or "")
    assert len(done.error_message or "") < 300


async def test_a_text_that_cannot_go_on_is_an_error() -> None:
    """A tag that a schema demands cannot be told from a call."""
    wanted = OutputFormat("json_schema", {"const": "<think>"}, "s")
    answer = await answer_of(replying_with("x"), wanted=wanted)
    assert answer.finished.reason is FinishReason.ERROR
    assert answer.finished.error_code == "invalid_grammar"


def asked_for(**fields: Any) -> GenerationRequest:
    return replace(request(), **fields)


@pytest.mark.parametrize(
    ("fields", "is_constrained"),
    [
        ({}, False),
        ({"tools": (FunctionTool("f"), CustomTool("c"))}, False),
        ({"tools": (FunctionTool("f", strict=False),)}, False),
        ({"tools": (), "tool_choice": "none"}, False),
        ({"tools": (RUN_TOOL,)}, True),
        ({"tools": (PATCH_TOOL,)}, True),
        ({"tools": (FunctionTool("f"),), "tool_choice": "required"}, True),
        ({"tools": (FunctionTool("f"),), "tool_choice": "none"}, True),
        ({"output_format": OutputFormat("json_object")}, True),
    ],
)
def test_there_is_a_constraint_only_where_something_is_asked(
    fields: dict[str, Any], is_constrained: bool
) -> None:
    rules = constraint_for(asked_for(**fields), GrammarCompiler())
    assert is_constrained == (rules is not None)


def test_a_tool_that_is_not_there_cannot_be_forced() -> None:
    asked = asked_for(tools=(RUN_TOOL,), tool_choice="other")
    with pytest.raises(EngineError, match="'other'") as refused:
        constraint_for(asked, GrammarCompiler())
    assert refused.value.code == "invalid_value"
