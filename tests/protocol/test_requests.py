import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import json_values
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import user_message
from tightloop.protocol.requests import (
    MAX_TOOLS_KEPT_BYTES,
    FunctionTool,
    RequestDecoder,
    ResponseRequest,
    Tool,
    decode_request,
)

FUNCTIONS = [{"type": "function", "name": name} for name in ("f", "g")]


def decode(*, websocket: bool = False, **fields: Any) -> ResponseRequest:
    return decode_request(json.dumps({"model": "m", **fields}).encode(), websocket=websocket)


def test_the_least_request() -> None:
    request = decode(input="hi")
    assert (request.model, request.input) == ("m", (user_message("hi"),))
    assert (request.stream, request.store, request.generate) == (False, True, True)


def test_every_field_we_act_on() -> None:
    request = decode(
        websocket=True,
        input=[],
        instructions="i",
        previous_response_id="resp_1",
        tools=FUNCTIONS,
        tool_choice="required",
        parallel_tool_calls=False,
        store=False,
        temperature=0,
        top_p=0.5,
        seed=7,
        max_output_tokens=16,
        max_tool_calls=1,
        metadata={"a": "b"},
        prompt_cache_key="k",
        generate=False,
        stream_id="lane-a",
        client_metadata={"tightloop.timing": "1", "other": {"nested": True}},
        prediction={"type": "content", "content": "as before"},
    )
    expected = ResponseRequest(
        model="m",
        input=(),
        instructions="i",
        previous_response_id="resp_1",
        tools=(FunctionTool("f"), FunctionTool("g")),
        tool_choice="required",
        parallel_tool_calls=False,
        stream=True,
        store=False,
        temperature=0.0,
        top_p=0.5,
        seed=7,
        max_output_tokens=16,
        generate=False,
        stream_id="lane-a",
        wants_timing=True,
        echo=request.echo,
        max_tool_calls=1,
        prompt_cache_key="k",
        metadata={"a": "b"},
        prediction="as before",
    )
    assert expected == request


def test_nulls_are_absences() -> None:
    fields = ("input", "tools", "tool_choice", "metadata", "text", "temperature", "stream", "store")
    nulls: dict[str, Any] = dict.fromkeys(fields)
    assert decode(**nulls).echo == decode().echo
    assert decode(**nulls).input == ()


def test_unknown_fields_are_ignored() -> None:
    assert decode(ignore_eos=True, context_management=[{"type": "x"}]) == decode()


def test_a_lane_is_for_websockets_only() -> None:
    assert decode(stream_id="lane-a").stream_id is None
    assert decode(stream_id="lane-a", websocket=True).stream_id == "lane-a"


def test_both_ways_to_ask_for_a_prewarm() -> None:
    assert decode(generate=False).generate is False
    assert decode(prompt_cache_options={"prewarm": True}).generate is False


def test_tool_choice_can_name_or_narrow() -> None:
    assert decode(tools=FUNCTIONS, tool_choice={"type": "function", "name": "g"}).tool_choice == "g"
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [FUNCTIONS[1]]}
    request = decode(tools=FUNCTIONS, tool_choice=allowed)
    assert (request.tools, request.tool_choice) == ((FunctionTool("g"),), "required")
    assert request.echo["tool_choice"] == allowed
    assert len(json.loads(bytes(request.echo["tools"]))) == 2
    assert decode(tools=FUNCTIONS, tool_choice={"type": "web_search"}).tool_choice == "auto"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": 3}, "model", "invalid_type"),
        ({"model": None}, "model", "invalid_type"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"max_output_tokens": 15}, "max_output_tokens", "invalid_value"),
        ({"max_tool_calls": 0}, "max_tool_calls", "invalid_value"),
        ({"top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "invalid_value"),
        ({"metadata": {"a": 1}}, "metadata[...]", "invalid_type"),
        ({"previous_response_id": 3}, "previous_response_id", "invalid_type"),
        ({"truncation": "maybe"}, "truncation", "invalid_value"),
        ({"prompt_cache_key": "x" * 65}, "prompt_cache_key", "invalid_value"),
        ({"tools": {}}, "tools", "invalid_type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tool_choice": "maybe"}, "tool_choice", "invalid_value"),
        ({"tool_choice": {}}, "tool_choice.type", "invalid_value"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name", "invalid_value"),
        (
            {"tools": FUNCTIONS, "tool_choice": {"type": "function", "name": "h"}},
            "tool_choice.name",
            "invalid_value",
        ),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "none", "tools": []}},
            "tool_choice.mode",
            "invalid_value",
        ),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.tools", "invalid_value"),
        ({"prediction": "as before"}, "prediction", "invalid_value"),
        ({"stream_id": "a b"}, "stream_id", "invalid_stream_id"),
        ({"stream_id": "a\n"}, "stream_id", "invalid_stream_id"),
        ({"stream_id": "x" * 257}, "stream_id", "invalid_stream_id"),
        ({"stream_id": 3}, "stream_id", "invalid_stream_id"),
        ({"input": [{"type": "function_call_output"}]}, "input[0].call_id", None),
    ],
)
def test_errors_name_the_field(fields: dict[str, Any], param: str, code: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        decode(websocket=True, **fields)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert code in (None, caught.value.code)


def test_a_missing_model_is_named() -> None:
    with pytest.raises(ApiError, match="missing required field model"):
        decode_request(b"{}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"model":"m",}', "byte 13"),
        (b"", "truncated"),
        (b'{"model":"m","input":' + b"[" * 100_000, "nested too deeply"),
        (b'{"model":"m","text":' + b'{"a":' * 100_000, "nested too deeply"),
        (b'{"model":"m","unknown":' + b"[" * 100_000, "nested too deeply"),
        (b'{"model":"\xff"}', "not UTF-8: invalid start byte at byte 10"),
        (b'{"model":"m","input":[{"type":"x","a":"\xff"}]}', "not UTF-8"),
    ],
)
def test_bad_json_is_refused_with_its_place(body: bytes, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        decode_request(body)
    assert caught.value.code == "invalid_json"


def test_half_characters_are_repaired_not_refused() -> None:
    """JavaScript clients send them when they cut tool output in the middle of an emoji."""
    body = rb'{"model":"m","input":"\ud83d \ud83d\ude00 \\ud83d \udc00"}'
    (message,) = decode_request(body).input
    assert message == user_message("\ufffd \U0001f600 \\ud83d \ufffd")


def test_tools_are_decoded_once_per_connection() -> None:
    decoder = RequestDecoder(websocket=True)
    body = json.dumps({"model": "m", "tools": FUNCTIONS})
    first, second = decoder.decode(body), decoder.decode(body)
    assert first.tools is second.tools
    other = decoder.decode(json.dumps({"model": "m", "tools": FUNCTIONS[:1]}))
    assert other.tools == (FunctionTool("f"),)
    assert decoder.decode(json.dumps({"model": "m"})).tools == ()


def test_a_very_long_list_of_tools_is_not_kept() -> None:
    """It is decoded as ever, and the short one before it is still known."""
    decoder = RequestDecoder()

    def tools(length: int) -> tuple[Tool, ...]:
        tool = {"type": "function", "name": "f", "description": "x" * length}
        return decoder.decode(json.dumps({"model": "m", "tools": [tool]})).tools

    short = tools(1)
    assert tools(MAX_TOOLS_KEPT_BYTES) == tools(MAX_TOOLS_KEPT_BYTES)
    assert tools(1) is short


@given(st.binary(max_size=60) | st.binary(max_size=30).map(lambda b: b'{"model":"m",' + b))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_a_request_or_the_documented_error(body: bytes) -> None:
    status = 400
    try:
        decode_request(body)
    except ApiError as error:
        status = error.status
    assert status == 400


FIELDS = st.sampled_from([*sorted(decode().echo), "input", "stream_id", "generate", "seed"])


@given(st.dictionaries(FIELDS, json_values, max_size=3))
@settings(max_examples=150, deadline=None)
def test_any_fields_give_a_request_or_the_documented_error(fields: dict[str, Any]) -> None:
    param: str | None = "none at fault"
    try:
        decode(websocket=True, **{**fields, "model": "m"})
    except ApiError as error:
        param = error.param
    assert param
