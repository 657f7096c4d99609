from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import json_values
from tightloop.protocol.chat_inbound import NUM_TOOLS_KEPT, ChatDecoder, ChatRequest
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import user_message
from tightloop.protocol.output_format import OutputFormat
from tightloop.protocol.requests import FunctionTool, ResponseRequest, Tool

HI = {"role": "user", "content": "hi"}
LS = {"type": "function", "function": {"name": "ls"}}


def decode(**fields: Any) -> ChatRequest:
    body = {"model": "m", "messages": [HI], **fields}
    return ChatDecoder().decode(msgspec.json.encode(body))


def refusal(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        decode(**fields)
    assert caught.value.status == 400
    return caught.value


def test_the_least_a_request_can_say() -> None:
    """Nothing is stored: the client keeps the conversation itself."""
    expected = ResponseRequest(model="m", input=(user_message("hi"),), store=False)
    assert ChatRequest(expected) == decode()


def test_everything_that_has_an_effect() -> None:
    schema = {"type": "object"}
    given = decode(
        tools=[LS],
        tool_choice={"type": "function", "function": {"name": "ls"}},
        parallel_tool_calls=False,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
        max_tokens=20,
        temperature=0,
        top_p=0.5,
        stop=["a", "b"],
        seed=7,
        n=1,
        stream=True,
        stream_options={"include_usage": True},
        reasoning_effort="low",
        prompt_cache_key="k",
        prediction={"type": "content", "content": [{"type": "text", "text": "as before"}]},
    )
    expected = ResponseRequest(
        model="m",
        input=(user_message("hi"),),
        tools=(FunctionTool("ls"),),
        tool_choice="ls",
        parallel_tool_calls=False,
        stream=True,
        store=False,
        temperature=0.0,
        top_p=0.5,
        seed=7,
        max_output_tokens=20,
        prompt_cache_key="k",
        output_format=OutputFormat("json_schema", schema, "a"),
        reasoning_effort="low",
        stop=("a", "b"),
        prediction="as before",
    )
    assert ChatRequest(expected, include_usage=True) == given


def test_what_has_no_effect_is_accepted() -> None:
    """Whatever its type: clients send what some other host understands."""
    ignored = {
        "user": "u",
        "metadata": {"a": "b"},
        "store": True,
        "frequency_penalty": 0.5,
        "logit_bias": {},
        "logprobs": False,
        "top_logprobs": None,
        "modalities": ["text"],
        "functions": [],
        "stream_options": {"include_obfuscation": False},
        "unheard_of": [1],
    }
    assert decode() == decode(**ignored)


def test_null_is_as_good_as_nothing() -> None:
    names = [
        "tools", "tool_choice", "parallel_tool_calls", "response_format", "max_tokens",
        "max_completion_tokens", "temperature", "top_p", "stop", "seed", "n", "stream",
        "stream_options", "reasoning_effort", "prompt_cache_key", "service_tier", "logprobs", "modalities",
    ]  # fmt: skip
    assert decode() == decode(**dict.fromkeys(names))


def test_the_tier_is_asked_for_as_in_the_other_dialects() -> None:
    assert decode(service_tier="flex").request.service_tier == "flex"


def test_the_newer_limit_wins() -> None:
    given = decode(max_tokens=5, max_completion_tokens=1).request
    assert given.max_output_tokens == 1


def test_one_stop_string() -> None:
    assert decode(stop="a").request.stop == ("a",)


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("n", {"n": 2}),
        ("logprobs", {"logprobs": True}),
        ("functions", {"functions": [{"name": "ls"}]}),
        ("modalities", {"modalities": ["text", "audio"]}),
        ("messages", {"messages": []}),
        ("messages", {"messages": "hi"}),
        ("messages[1].content[0].text", {"messages": [HI, {**HI, "content": [{"text": 1}]}]}),
        ("messages[0].role", {"messages": [{"role": "me"}]}),
        ("model", {"model": None}),
        ("stop", {"stop": list("abcde")}),
        ("stop", {"stop": ["a", ""]}),
        ("temperature", {"temperature": 3}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_completion_tokens", {"max_completion_tokens": "many"}),
        ("prediction.content", {"prediction": {"type": "content"}}),
        ("tools[0].function", {"tools": [{"type": "function"}]}),
        ("tool_choice", {"tool_choice": "required"}),
        ("response_format.type", {"response_format": {"type": "xml"}}),
        ("stream_options.include_usage", {"stream_options": {"include_usage": 1}}),
    ],
)
def test_a_refusal_names_its_field(param: str, fields: dict[str, Any]) -> None:
    error = refusal(**fields)
    assert param == error.param
    assert param in error.message


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ApiError) as caught:
        ChatDecoder().decode(b'{"model":"m"}')
    assert (caught.value.param, caught.value.code) == ("messages", "missing_required_parameter")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"model":"\xff"}', b"[" * 100_000])
def test_no_json_or_no_object(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        ChatDecoder().decode(body)
    assert caught.value.status == 400


def test_a_message_that_is_nested_too_deeply_is_refused() -> None:
    """Also where the reason for the refusal is looked for."""
    content = b"[" * 5000 + b"]" * 5000
    body = b'{"model":"m","messages":[{"role":"user","content":%b}]}' % content
    with pytest.raises(ApiError) as caught:
        ChatDecoder().decode(body)
    assert caught.value.code == "invalid_json"


def test_half_a_character_is_replaced() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"a\\ud83d"}]}'
    assert (user_message("a\N{REPLACEMENT CHARACTER}"),) == ChatDecoder().decode(body).request.input


def tools_of(decoder: ChatDecoder, *names: str) -> tuple[Tool, ...]:
    listed = [{"type": "function", "function": {"name": name}} for name in names]
    body = {"model": "m", "messages": [HI], "tools": listed}
    return decoder.decode(msgspec.json.encode(body)).request.tools


def test_the_same_tools_are_decoded_once_and_others_are_not_mixed_up() -> None:
    """Also when a request without tools, such as one for a title, comes in between."""
    decoder = ChatDecoder()
    first = tools_of(decoder, "a", "b")
    assert tools_of(decoder, "b") == (FunctionTool("b"),)
    assert tools_of(decoder) == ()
    assert tools_of(decoder, "a", "b") is first


def test_few_lists_of_tools_are_kept_the_latest_used() -> None:
    decoder = ChatDecoder()
    kept, dropped = tools_of(decoder, "kept"), tools_of(decoder, "dropped")
    for n in range(NUM_TOOLS_KEPT - 1):
        assert tools_of(decoder, "kept") is kept
        tools_of(decoder, f"other{n}")
    assert tools_of(decoder, "kept") is kept
    assert tools_of(decoder, "dropped") is not dropped


_fields = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ["model", "messages", "tools", "tool_choice", "stop", "n", "stream_options", "functions"],
        json_values,
    ),
)


@settings(max_examples=150)
@given(_fields)
def test_any_fields_are_a_request_or_a_refusal(fields: dict[str, Any]) -> None:
    body = msgspec.json.encode({"model": "m", "messages": [HI], **fields})
    try:
        ChatDecoder().decode(body)
    except ApiError as error:
        status = error.status
    else:
        status = 400
    assert status == 400


@settings(max_examples=100)
@given(st.binary(max_size=40))
def test_any_bytes_are_a_refusal(body: bytes) -> None:
    with pytest.raises(ApiError):
        ChatDecoder().decode(body)
