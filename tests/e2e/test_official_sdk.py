"""2xx: the official Python SDK, over HTTP and over its WebSocket connection, unmodified."""

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tests.e2e.conftest import Serve

PATCH = "*** Begin Patch\n*** End Patch\n"
ANSWERS = [
    [
        {"reasoning": "look"},
        {"call": {"name": "shell", "arguments": {"cmd": "ls"}, "call_id": "a"}},
    ],
    [{"call": {"name": "apply_patch", "arguments": PATCH, "call_id": "b"}}],
    [{"text": "all done"}],
]
SHELL: Any = {
    "type": "function",
    "name": "shell",
    "description": "run",
    "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}},
    "strict": False,
}
TOOLS: Any = [SHELL, {"type": "custom", "name": "apply_patch", "description": "patch"}]


@pytest.fixture
def sdk(serve: Serve, script: Callable[[list[Any]], str]) -> Iterator[openai.OpenAI]:
    """The SDK's client, pointed at a server whose answers are scripted."""
    served = serve("--model", script(ANSWERS))
    with openai.OpenAI(base_url=served.url, api_key="none needed", max_retries=0) as client:
        yield client


def test_201_a_streamed_tool_turn(sdk: openai.OpenAI) -> None:
    """Events parse into the SDK's own types, in order, ids consistent; output in the next turn."""
    stream = sdk.responses.create(model="scripted", input="go", tools=TOOLS, stream=True)
    events = list(stream)
    assert [event.type for event in events][:2] == ["response.created", "response.in_progress"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    done = [event for event in events if event.type == "response.output_item.done"]
    call = done[1].item
    assert call.type == "function_call"
    assert (call.name, call.arguments, call.call_id) == ("shell", '{"cmd":"ls"}', "a")
    final = events[-1]
    assert final.type == "response.completed"
    assert final.response.output[1] == call

    following = sdk.responses.create(
        model="scripted",
        previous_response_id=final.response.id,
        input=[{"type": "function_call_output", "call_id": "a", "output": "file.py"}],
        tools=TOOLS,
    )
    patch = following.output[0]
    assert patch.type == "custom_tool_call"
    assert patch.input == PATCH


def test_202_the_stream_helper(sdk: openai.OpenAI) -> None:
    """The stricter of the SDK's two ways: it raises on anything out of order."""
    with sdk.responses.stream(model="scripted", input="go", tools=TOOLS) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert "response.function_call_arguments.delta" in kinds
    assert final.status == "completed"
    assert [item.type for item in final.output] == ["reasoning", "function_call"]


def test_203_a_socket_with_prewarm_tools_and_continuation(sdk: openai.OpenAI) -> None:
    """A whole agent turn on one connection, unstored, each request with new items only."""
    with sdk.responses.connect() as connection:

        def ask(**fields: Any) -> Any:
            connection.response.create(model="scripted", store=False, tools=TOOLS, **fields)
            for event in connection:
                if event.type == "response.completed":
                    return event.response
                assert event.type != "error", event
            raise AssertionError("the connection ended")

        rules: Any = [{"role": "developer", "content": "be brief"}]
        warm = ask(input=rules, generate=False)
        assert warm.output == []
        first = ask(previous_response_id=warm.id, input=[{"role": "user", "content": "go"}])
        assert first.output[1].call_id == "a"
        output = {"type": "function_call_output", "call_id": "a", "output": "ok"}
        second = ask(previous_response_id=first.id, input=[output])
        assert second.output[0].call_id == "b"
        output = {"type": "custom_tool_call_output", "call_id": "b", "output": "ok"}
        third = ask(previous_response_id=second.id, input=[output])
        assert third.output_text == "all done"


def test_204_a_named_lane_on_a_socket(sdk: openai.OpenAI) -> None:
    """The SDK sends stream_id; every event of the lane carries it."""
    with sdk.responses.connect() as connection:
        connection.response.create(model="scripted", input="go", stream_id="lane-a")
        lanes = set()
        for event in connection:
            lanes.add(event.to_dict().get("stream_id"))
            if event.type == "response.completed":
                break
        assert lanes == {"lane-a"}


def test_205_retrieve_and_delete(sdk: openai.OpenAI) -> None:
    """What was stored can be fetched until it is deleted."""
    made = sdk.responses.create(model="scripted", input="go", tools=TOOLS)
    assert sdk.responses.retrieve(made.id).output == made.output
    sdk.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)


def test_206_errors_have_the_sdks_types(sdk: openai.OpenAI) -> None:
    """With the code and the field, so that a program can react."""
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(model="unknown", input="go")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(model="scripted", input="go", previous_response_id="resp_none")
    assert caught.value.code == "previous_response_not_found"


def test_207_models(sdk: openai.OpenAI) -> None:
    """The listing parses."""
    assert [model.id for model in sdk.models.list()] == ["scripted"]
