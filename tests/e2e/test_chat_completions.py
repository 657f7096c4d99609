"""22x: the official Python SDK by its Chat Completions half, unmodified."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

from tests.e2e.conftest import Serve
from tests.engine.gguf_fixture import write_gguf

PATCH = "*** Begin Patch\n*** End Patch\n"
ANSWERS: list[Any] = [
    [
        {"reasoning": "look"},
        {"text": "let me see"},
        {"call": {"name": "shell", "arguments": {"cmd": "ls"}, "call_id": "a"}},
    ],
    [{"call": {"name": "apply_patch", "arguments": PATCH, "call_id": "b"}}],
    [{"text": '{"files":'}, {"text": '["a.py"]}'}],
    [{"error": {"message": "the engine is gone", "code": "upstream_error"}}],
]
PARAMETERS = {
    "type": "object",
    "properties": {"cmd": {"type": "string"}},
    "required": ["cmd"],
    "additionalProperties": False,
}
SHELL: Any = {
    "type": "function",
    "function": {"name": "shell", "parameters": PARAMETERS, "strict": True},
}
TOOLS: Any = [SHELL, {"type": "custom", "custom": {"name": "apply_patch"}}]
GO: Any = [{"role": "system", "content": "fix it"}, {"role": "user", "content": "go"}]


class Listing(pydantic.BaseModel):
    """What the third answer must look like."""

    files: list[str]


@pytest.fixture
def sdk(serve: Serve, script: Callable[[list[Any]], str]) -> Iterator[openai.OpenAI]:
    """The SDK's client, pointed at a server whose answers are scripted."""
    served = serve("--model", script(ANSWERS))
    with openai.OpenAI(base_url=served.url, api_key="none needed", max_retries=0) as client:
        yield client


def after(num_outputs: int) -> Any:
    """A conversation with so many tool outputs: the script's next answer depends on them."""
    messages = list(GO)
    for n in range(num_outputs):
        function = {"name": "shell", "arguments": "{}"}
        call = {"id": f"c{n}", "type": "function", "function": function}
        messages.append({"role": "assistant", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{n}", "content": "ok"})
    return messages


def test_221_a_tool_loop_without_a_stream(sdk: openai.OpenAI) -> None:
    """Each message goes back as the SDK gave it, a function's and a custom tool's calls alike."""
    messages = list(GO)

    def turn() -> Any:
        made = sdk.chat.completions.create(model="scripted", messages=messages, tools=TOOLS)
        [choice] = made.choices
        messages.append(choice.message)
        return choice

    first = turn()
    assert first.finish_reason == "tool_calls"
    assert first.message.content == "let me see"
    assert first.message.reasoning_content == "look"
    [call] = first.message.tool_calls
    assert (call.type, call.function.arguments) == ("function", '{"cmd":"ls"}')
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "a.py"})
    [patch] = turn().message.tool_calls
    assert (patch.type, patch.custom.input) == ("custom", PATCH)
    messages.append({"role": "tool", "tool_call_id": patch.id, "content": "Done!"})
    last = turn()
    assert (last.finish_reason, last.message.tool_calls) == ("stop", None)


def test_222_a_stream_with_usage(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model="scripted",
        messages=GO,
        tools=TOOLS,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, usage = list(stream)
    deltas: list[Any] = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == "let me see"
    pieces = [delta.tool_calls[0] for delta in deltas if delta.tool_calls]
    assert (pieces[0].index, pieces[0].id, pieces[0].function.name) == (0, "a", "shell")
    assert "".join(piece.function.arguments for piece in pieces) == '{"cmd":"ls"}'
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.completion_tokens > 0


def test_223_a_streamed_custom_call(sdk: openai.OpenAI) -> None:
    """The SDK has no types for its pieces and gives them as they came."""
    stream = sdk.chat.completions.create(
        model="scripted", messages=after(1), tools=TOOLS, stream=True
    )
    calls = [call.to_dict() for chunk in stream for call in chunk.choices[0].delta.tool_calls or ()]
    opened: Any = calls[0]
    assert (opened["type"], opened["id"], opened["custom"]["name"]) == (
        "custom",
        "b",
        "apply_patch",
    )
    pieces: Any = calls
    assert "".join(piece["custom"]["input"] for piece in pieces) == PATCH


def test_224_the_stream_helper(sdk: openai.OpenAI) -> None:
    """The stricter of the SDK's two ways: it collects, and parses the arguments of strict tools."""
    with sdk.chat.completions.stream(model="scripted", messages=GO, tools=[SHELL]) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    assert "tool_calls.function.arguments.done" in kinds
    [call] = final.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == {"cmd": "ls"}
    assert "content.done" in kinds


def test_225_an_answer_of_a_given_shape(sdk: openai.OpenAI) -> None:
    """``parse`` sends a strict JSON schema and reads the answer with it, in one piece or many."""
    made = sdk.chat.completions.parse(model="scripted", messages=after(2), response_format=Listing)
    assert made.choices[0].message.parsed == Listing(files=["a.py"])
    with sdk.chat.completions.stream(
        model="scripted", messages=after(2), response_format=Listing
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == Listing(files=["a.py"])


def test_226_refusals_have_the_sdks_types(sdk: openai.OpenAI) -> None:
    """With the code and the field, so that a program can react."""
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model="scripted", messages=GO, n=2)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "n")
    orphan: Any = [{"role": "tool", "tool_call_id": "gone", "content": "x"}]
    with pytest.raises(openai.BadRequestError, match="gone") as caught:
        sdk.chat.completions.create(model="scripted", messages=orphan)
    assert caught.value.param == "messages[0].tool_call_id"


def test_227_a_failure_is_raised_in_the_middle_of_a_stream_too(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="gone"):
        sdk.chat.completions.create(model="scripted", messages=after(3))
    stream = sdk.chat.completions.create(model="scripted", messages=after(3), stream=True)
    with pytest.raises(openai.APIError, match="gone") as caught:
        list(stream)
    assert caught.value.code == "upstream_error"


def test_228_a_real_model_goes_on_from_what_it_has_computed(serve: Serve, tmp_path: Path) -> None:
    """llama.cpp with random weights: it says nothing of sense, but it counts what it reuses."""
    served = serve("--model", str(write_gguf(tmp_path / "tiny.gguf")))
    with openai.OpenAI(base_url=served.url, api_key="none needed", max_retries=0) as client:
        [model] = client.models.list().data
        messages: list[Any] = [*GO]

        def turn() -> Any:
            made = client.chat.completions.create(
                model=model.id, messages=messages, max_tokens=8, temperature=0
            )
            messages.append(made.choices[0].message)
            messages.append({"role": "user", "content": "and then?"})
            return made.usage

        first, second = turn(), turn()
    assert first.prompt_tokens_details.cached_tokens == 0
    assert second.prompt_tokens_details.cached_tokens >= first.prompt_tokens
    assert second.prompt_tokens > second.prompt_tokens_details.cached_tokens


def test_229_a_plain_stream_of_lines(serve: Serve, script: Callable[[list[Any]], str]) -> None:
    """Clients without an SDK read data lines up to [DONE]; there is nothing else in the stream."""
    served = serve("--model", script(ANSWERS))
    with openai.OpenAI(base_url=served.url, api_key="none needed", max_retries=0) as client:
        response = client.post(
            "/chat/completions",
            body={"model": "scripted", "messages": GO, "stream": True},
            cast_to=str,
        )
    *frames, done, rest = response.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    for frame in frames:
        assert json.loads(frame.removeprefix("data: "))["object"] == "chat.completion.chunk"
