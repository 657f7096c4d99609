"""Bodies made of kept pieces, against bodies made whole."""

from dataclasses import replace

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import strategies
from tests.engine.collecting import request
from tightloop.engine.interface import EngineError, Node, Sampling
from tightloop.engine.remote.bodies import NUM_TOOLS_KEPT, ChatBodies, KeptTools
from tightloop.engine.remote.hosts import HOST_KINDS
from tightloop.protocol.chat_request import build_request, encode_tools
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import FunctionCall, FunctionCallOutput, Item
from tightloop.protocol.requests import CustomTool, FunctionTool, Tool

TOOLS: tuple[Tool, ...] = (FunctionTool("run", "runs"), CustomTool("patch", "edits", "start: /x/"))
OTHER = HOST_KINDS["other"]

few = st.sampled_from(["a", "b"])
turns = st.lists(
    st.tuples(
        st.lists(
            st.one_of(
                strategies.messages,
                st.builds(FunctionCall, few, few, strategies.texts),
                st.builds(FunctionCallOutput, few, strategies.texts),
            ),
            max_size=4,
        ),
        st.none() | strategies.texts,
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@given(turns)
@settings(max_examples=40)
def test_bodies_say_the_same_as_those_made_whole(
    told: list[tuple[list[Item], str | None, bool]],
) -> None:
    """Turn after turn of one conversation, each with instructions and tools of its own."""
    bodies = ChatBodies()
    parent: Node | None = None
    for n, (items, instructions, has_tools) in enumerate(told):
        asked = replace(
            request(items, sampling=Sampling(0.5, None, 3, ("END",)), max_output_tokens=7),
            response_id=f"r{n}",
            parent=parent,
            instructions=instructions,
            tools=TOOLS if has_tools else (),
        )
        try:
            whole = build_request(
                asked.context(),
                instructions,
                asked.tools,
                model="m",
                temperature=0.5,
                seed=3,
                stop=("END",),
                max_output_tokens=7,
            )
        except ApiError as error:
            expected: object = (error.code, error.param)
        else:
            expected = orjson.loads(msgspec.json.encode(whole))
        try:
            made: object = orjson.loads(bodies.body(asked, "m", OTHER, {}).joined())
        except ApiError as error:
            made = (error.code, error.param)
        assert made == expected
        parent = Node(asked.response_id, parent, tuple(items))


def test_the_pieces_of_a_turn_are_those_of_the_one_before() -> None:
    bodies = ChatBodies()
    first = request("one", name="r1", instructions="rules")
    before = bodies.body(first, "m", OTHER, {})
    second = request("two", name="r2", instructions="rules", parent=Node("r1", None, first.items))
    after = bodies.body(second, "m", OTHER, {"extra": 1})
    assert list(after.stable[: len(before.stable)]) == list(before.stable)
    assert after.stable[1] is before.stable[1]
    assert after.num_bytes == len(after.joined())
    assert orjson.loads(after.joined())["extra"] == 1


def test_what_a_host_does_not_know_is_not_said() -> None:
    asked = replace(request("hi", max_output_tokens=5), prediction="old")
    plain = orjson.loads(ChatBodies().body(asked, "m", OTHER, {}).joined())
    assert plain["max_tokens"] == 5
    assert "prediction" not in plain
    known = orjson.loads(ChatBodies().body(asked, "m", HOST_KINDS["openai"], {}).joined())
    assert known["prediction"]["content"] == "old"


def test_a_forced_call_without_tools_is_refused() -> None:
    with pytest.raises(EngineError, match="no function or custom tool is offered"):
        ChatBodies().body(request(tool_choice="required"), "m", OTHER, {})


def test_tools_are_encoded_once() -> None:
    kept = KeptTools(encode_tools)
    assert kept.encoded(TOOLS, TOOLS) is kept.encoded(TOOLS, TOOLS)
    for n in range(NUM_TOOLS_KEPT):
        kept.encoded((FunctionTool(f"f{n}"),), (FunctionTool(f"f{n}"),))
    assert bytes(kept.encoded(TOOLS, TOOLS)) == bytes(encode_tools(TOOLS))


def test_an_empty_conversation_has_no_messages() -> None:
    body = ChatBodies().body(request([]), "m", OTHER, {})
    assert orjson.loads(body.joined())["messages"] == []
