"""A Messages request asks for the same as the ``ResponseRequest`` it becomes."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import json_values
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import user_message
from tightloop.protocol.messages_inbound import (
    MAX_TOOL_LIST_BYTES,
    NUM_TOOL_LISTS,
    MessagesDecoder,
    MessagesRequest,
)
from tightloop.protocol.output_format import OutputFormat
from tightloop.protocol.requests import FunctionTool, OpaqueTool, ResponseRequest

BASE: dict[str, Any] = {
    "model": "m",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hi"}],
}
BASH = {"name": "Bash", "description": "runs", "input_schema": {"type": "object"}}
HEADER = "x-anthropic-billing-header: cc_version=2.1; cc_entrypoint=cli; cch=%s;"


def decode(**fields: Any) -> MessagesRequest:
    return MessagesDecoder().decode(json.dumps({**BASE, **fields}).encode())


def asked(**fields: Any) -> ResponseRequest:
    return decode(**fields).asked


def refusal(**fields: Any) -> tuple[str | None, str | None]:
    with pytest.raises(ApiError) as caught:
        decode(**fields)
    return caught.value.code, caught.value.param


def test_the_smallest_request() -> None:
    """Nothing is stored: the client keeps the conversation and sends all of it."""
    expected = ResponseRequest(
        "m", (user_message("hi"),), store=False, max_output_tokens=100, stream=False
    )
    assert MessagesRequest(expected, shows_thinking=False) == decode()


def test_every_field_that_counts() -> None:
    request = asked(
        system="Be brief.",
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop_sequences=["END", ""],
        stream=True,
        output_config={"effort": "low"},
        tools=[BASH],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        metadata={"user_id": '{"session_id":"s"}'},
        context_management={"edits": [{"type": "clear_thinking_20251015"}]},
        service_tier="auto",
        container=None,
    )
    assert (
        request.instructions,
        request.temperature,
        request.top_p,
        request.stop,
        request.stream,
    ) == ("Be brief.", 0.5, 0.9, ("END",), True)
    assert (FunctionTool("Bash", "runs", {"type": "object"}),) == request.tools
    assert (
        request.tool_choice,
        request.parallel_tool_calls,
        request.reasoning_effort,
    ) == ("required", False, "low")
    assert (request.metadata, request.prompt_cache_key) == ({}, None)


def test_system_blocks_are_joined_without_the_billing_header() -> None:
    """It differs in every request, so with it no prefix would ever be warm."""
    mark = {"cache_control": {"type": "ephemeral"}}
    first, second = (
        asked(
            system=[
                {"type": "text", "text": HEADER % nonce},
                {"type": "text", "text": "You are an agent.", **mark},
                {"type": "text", "text": ""},
                {"type": "text", "text": "Rules."},
            ]
        ).instructions
        for nonce in ("36ee5", "0aaa9")
    )
    assert "You are an agent.\n\nRules." == first == second
    assert {asked(system="").instructions, asked(system=[]).instructions} == {None}


def test_the_session_is_the_cache_key() -> None:
    """Within the length that the Responses API allows."""
    body = json.dumps(BASE)
    decoder = MessagesDecoder()
    assert decoder.decode(body, session="abc").asked.prompt_cache_key == "abc"
    assert decoder.decode(body, session="x" * 100).asked.prompt_cache_key == "x" * 64
    assert decoder.decode(body, session="").asked.prompt_cache_key is None


@pytest.mark.parametrize(("given_tokens", "expected"), [(1, 1), (15, 15), (64000, 64000)])
def test_few_tokens_are_allowed(given_tokens: int, expected: int) -> None:
    """Clients probe a key with one token; the Responses API's minimum of 16 is not this one's."""
    assert expected == asked(max_tokens=given_tokens).max_output_tokens


def test_no_tokens_only_fill_the_cache() -> None:
    request = asked(max_tokens=0)
    assert (request.generate, request.max_output_tokens) == (False, None)


def test_max_tokens_is_required_but_for_counting() -> None:
    body = json.dumps({key: value for key, value in BASE.items() if key != "max_tokens"})
    with pytest.raises(ApiError) as caught:
        MessagesDecoder().decode(body)
    assert (caught.value.code, caught.value.param) == ("missing_required_parameter", "max_tokens")
    counted = MessagesDecoder().decode(body, is_count=True).asked
    assert (counted.max_output_tokens, counted.generate) == (None, True)


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        (None, False),
        ({"type": "disabled"}, False),
        ({"type": "enabled", "budget_tokens": 1024}, True),
        ({"type": "adaptive"}, True),
        ({"type": "adaptive", "display": "summarized"}, True),
        ({"type": "adaptive", "display": "omitted"}, False),
        ({}, False),
    ],
)
def test_thinking_is_shown_to_those_who_ask(thinking: Any, expected: bool) -> None:
    assert expected is decode(thinking=thinking).shows_thinking


def test_disabled_thinking_asks_for_none() -> None:
    """An agent's small helper calls say so, and wait for the answer."""
    config = {"effort": "high"}
    assert asked(output_config=config, thinking={"type": "disabled"}).reasoning_effort == "none"
    assert asked(output_config=config, thinking={"type": "adaptive"}).reasoning_effort == "high"
    assert asked(output_config={"effort": 3}).reasoning_effort is None


def test_tools_of_all_kinds() -> None:
    """Those that run on Anthropic's servers are kept as they came and offered to nobody."""
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
    plain = {"name": "Read", "type": "custom", "strict": True, "cache_control": {"type": "x"}}
    first, second, third = asked(tools=[BASH, search, plain]).tools
    assert FunctionTool("Bash", "runs", {"type": "object"}) == first
    assert isinstance(second, OpaqueTool)
    assert ("web_search_20250305", search) == (second.type, json.loads(bytes(second.raw)))
    assert FunctionTool("Read", strict=True) == third
    assert asked(tools=None).tools == ()


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, "auto"),
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "Bash"}, "Bash"),
    ],
)
def test_tool_choice(choice: Any, expected: str) -> None:
    request = asked(tools=[BASH], tool_choice=choice)
    assert (expected, True) == (request.tool_choice, request.parallel_tool_calls)


def test_an_output_schema() -> None:
    """Only the Responses API wants a name for it."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    config = {"format": {"type": "json_schema", "schema": schema}}
    assert (
        OutputFormat("json_schema", schema, "answer") == asked(output_config=config).output_format
    )


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"model": 5}, "invalid_type", "model"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": "hi"}, "invalid_type", "messages"),
        ({"max_tokens": -1}, "invalid_value", "max_tokens"),
        ({"temperature": 3}, "invalid_value", "temperature"),
        ({"system": 5}, "invalid_type", "system"),
        ({"tools": [BASH, {"name": 1}]}, "invalid_type", "tools[1].name"),
        ({"tools": [{"name": ""}]}, "invalid_value", "tools[0].name"),
        ({"tools": [{}]}, "missing_required_parameter", "tools[0].name"),
        ({"tools": 7}, "invalid_type", "tools"),
        ({"tool_choice": {"type": "some"}}, "invalid_value", "tool_choice.type"),
        ({"tool_choice": {"type": "tool", "name": "X"}}, "invalid_value", "tool_choice.name"),
        (
            {"output_config": {"format": {"type": "x"}}},
            "invalid_value",
            "output_config.format.type",
        ),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], code: str, param: str) -> None:
    assert (code, param) == refusal(**fields)


def test_what_is_no_json_is_refused() -> None:
    for body in (b"{", b'{"model":"\xff"}', "[" * 100_000):
        with pytest.raises(ApiError) as caught:
            MessagesDecoder().decode(body)
        assert caught.value.code in ("invalid_json", "invalid_type")


@pytest.mark.parametrize(
    ("before", "after", "param"),
    [
        (b'"input":{"a":"', b'"}', "messages[0].content[0].input"),
        (b'"text":"', b'"', "messages"),
    ],
)
def test_what_is_no_utf8_is_refused_where_it_counts(
    before: bytes, after: bytes, param: str
) -> None:
    """Also in what is passed on as it came."""
    kind = b'"type":"tool_use","id":"c","name":"f",' if b"input" in before else b'"type":"text",'
    content = b'[{"role":"assistant","content":[{' + kind + before + b"\xff" + after + b"}]}]"
    body = b'{"model":"m","max_tokens":1,"messages":' + content + b"}"
    with pytest.raises(ApiError) as caught:
        MessagesDecoder().decode(body)
    assert (caught.value.code, caught.value.param) == ("invalid_json", param)
    search = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],"tools":[{"type":"x","a":"\xff"}]}'
    with pytest.raises(ApiError) as caught:
        MessagesDecoder().decode(search)
    assert (caught.value.code, caught.value.param) == ("invalid_json", "tools[0]")


def test_half_a_character_is_replaced() -> None:
    """JavaScript cuts strings anywhere; such a request is answered, as on the other dialects."""
    body = json.dumps({**BASE, "system": "cut: \ud83d"}).encode()
    assert MessagesDecoder().decode(body).asked.instructions == "cut: \ufffd"


def test_tools_are_decoded_once_for_all_that_repeat_them() -> None:
    """Also when another agent's tools come in between; only so many lists are kept."""
    decoder = MessagesDecoder()

    def tools(name: str) -> object:
        body = {**BASE, "tools": [{**BASH, "name": name}]}
        return decoder.decode(json.dumps(body)).asked.tools

    first = tools("a")
    for n in range(NUM_TOOL_LISTS - 2):
        tools(f"b{n}")
        assert first is tools("a")
    for n in range(NUM_TOOL_LISTS):
        tools(f"c{n}")
    assert first is not tools("a")
    huge = "x" * MAX_TOOL_LIST_BYTES
    assert tools(huge) is not tools(huge)


def test_a_body_cut_anywhere_is_refused() -> None:
    """Nothing of it is taken for a shorter request."""
    body = json.dumps({**BASE, "tools": [BASH], "system": "é"}, ensure_ascii=False).encode()
    for end in range(len(body)):
        with pytest.raises(ApiError) as caught:
            MessagesDecoder().decode(body[:end])
        assert caught.value.status == 400


@settings(max_examples=100)
@given(st.binary(max_size=40))
def test_any_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(ApiError):
        MessagesDecoder().decode(body)


@settings(max_examples=100)
@given(
    st.sampled_from(
        [
            "model",
            "system",
            "messages",
            "tools",
            "tool_choice",
            "thinking",
            "output_config",
            "stop_sequences",
            "metadata",
            "max_tokens",
        ]
    ),
    json_values,
)
def test_any_value_of_a_field_is_taken_or_refused(field: str, value: object) -> None:
    """Never another exception."""
    refused: ApiError | None = None
    try:
        decode(**{field: value})
    except ApiError as error:
        refused = error
    assert refused is None or (refused.status, (refused.param or "")[: len(field)]) == (400, field)


@pytest.mark.parametrize(
    ("word", "tier"),
    [
        ("standard_only", "default"),
        ("auto", None),
        (None, None),
        ("turbo", None),
        ({}, None),
        (7, None),
    ],
)
def test_only_standard_only_asks_for_a_tier(word: object, tier: str | None) -> None:
    """In the Responses API's word; any other leaves the choice to the policy."""
    assert asked(service_tier=word).service_tier == tier
