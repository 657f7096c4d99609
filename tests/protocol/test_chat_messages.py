"""Messages of a chat, made whole and step by step."""

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import strategies
from tightloop.protocol.chat_messages import (
    IMAGE_FOLLOWS,
    NO_OUTPUT,
    Transcript,
    build_messages,
)
from tightloop.protocol.compaction import Summary, seal, visible
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    Compaction,
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OpaqueItem,
    OpaquePart,
    Reasoning,
    TextPart,
    user_message,
)

USER = user_message("hi")


def message(role: str, text: str) -> Message:
    return Message(role, (TextPart("input_text", text),))


def part(raw: bytes) -> OpaquePart:
    return OpaquePart(msgspec.json.decode(raw)["type"], msgspec.Raw(raw))


def wire_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def test_a_whole_agent_turn() -> None:
    items: list[Item] = [
        message("developer", "D"),
        USER,
        Reasoning(("hm",)),
        message("assistant", "I look."),
        FunctionCall("c1", "shell", '{"cmd":"ls"}'),
        CustomToolCall("c2", "apply_patch", 'a "b"'),
        CustomToolCallOutput("c2", "patched"),
        FunctionCallOutput("c1", "x.py"),
        message("assistant", "Done."),
    ]
    assert build_messages(items, "I") == [
        {"role": "system", "content": "I\n\nD"},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                wire_call("c1", "shell", '{"cmd":"ls"}'),
                wire_call("c2", "apply_patch", '{"input":"a \\"b\\""}'),
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "x.py"},
        {"role": "tool", "tool_call_id": "c2", "content": "patched"},
        {"role": "assistant", "content": "Done."},
    ]


def test_only_leading_system_messages_are_merged() -> None:
    """Templates accept one system message, first; later ones must not move, or caches break."""
    items = [message("system", "a"), message("developer", "b"), USER, message("developer", "c")]
    assert build_messages(items) == [
        {"role": "system", "content": "a\n\nb"},
        {"role": "user", "content": "hi"},
        {"role": "user", "content": "c"},
    ]
    assert build_messages([USER]) == [{"role": "user", "content": "hi"}]


def test_sequential_calls_stay_separate_turns() -> None:
    items: list[Item] = [
        FunctionCall("c1", "f", ""),
        FunctionCallOutput("c1", "1"),
        FunctionCall("c2", "f", "{}"),
        FunctionCallOutput("c2", "2"),
    ]
    roles = [entry["role"] for entry in build_messages(items)]
    assert roles == ["assistant", "tool", "assistant", "tool"]


def test_an_interrupted_call_gets_a_stand_in_and_a_lost_one_is_refused() -> None:
    entries = build_messages([FunctionCall("c1", "f", "{}"), USER])
    assert entries[1] == {"role": "tool", "tool_call_id": "c1", "content": NO_OUTPUT}
    with pytest.raises(ApiError) as caught:
        build_messages([USER, FunctionCallOutput("c9", "x")])
    assert caught.value.param == "input[1].call_id"


def test_reasoning_is_sent_back_only_on_request() -> None:
    items: list[Item] = [USER, Reasoning(("sum",), content=("raw",)), message("assistant", "a")]
    assert "reasoning_content" not in build_messages(items)[1]
    assert build_messages(items, include_reasoning=True)[1]["reasoning_content"] == "raw"
    assert len(build_messages([USER, Reasoning(("sum",))])) == 1


def test_images_are_carried_and_files_refused() -> None:
    image = part(b'{"type":"input_image","image_url":"data:x","detail":"low"}')
    items = [Message("user", (TextPart("input_text", "see"), image))]
    assert build_messages(items)[0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
    ]
    for raw in (b'{"type":"input_file","file_id":"f"}', b'{"type":"input_image","file_id":"f"}'):
        with pytest.raises(ApiError) as caught:
            build_messages([Message("user", (part(raw),))])
        assert str(caught.value.param).startswith("input[0].content[0]")


def test_images_in_outputs_follow_all_outputs_of_the_turn() -> None:
    """A chat wants its tool messages next to their calls, and text in them."""
    image = part(b'{"type":"input_image","image_url":"data:x"}')
    items: list[Item] = [
        FunctionCall("c1", "look", "{}"),
        CustomToolCall("c2", "draw", "a line"),
        FunctionCallOutput("c1", "", parts=(image,)),
        CustomToolCallOutput("c2", "done", parts=(TextPart("input_text", "done"), image)),
    ]
    shown = {"type": "image_url", "image_url": {"url": "data:x"}}
    assert build_messages(items)[1:] == [
        {"role": "tool", "tool_call_id": "c1", "content": IMAGE_FOLLOWS},
        {"role": "tool", "tool_call_id": "c2", "content": "done"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Output of c1:"},
                shown,
                {"type": "text", "text": "Output of c2:"},
                shown,
            ],
        },
    ]


@pytest.mark.parametrize("role", ["developer", "assistant", "user"])
def test_parts_that_a_chat_has_no_place_for_are_refused(role: str) -> None:
    odd = Message(role, (part(b'{"type":"input_file","file_id":"f"}'),))
    with pytest.raises(ApiError, match="input_file") as refused:
        build_messages([odd])
    assert refused.value.param == "input[0].content[0].type"
    assert refused.value.code == "unsupported_content"


def test_an_odd_part_of_an_output_is_refused_with_its_place() -> None:
    output = FunctionCallOutput("c", "", parts=(part(b'{"type":"input_file","file_id":"f"}'),))
    with pytest.raises(ApiError) as refused:
        build_messages([FunctionCall("c", "look", "{}"), output])
    assert refused.value.param == "input[1].output[0].type"


def test_a_refusal_is_assistant_text_and_opaque_items_say_nothing() -> None:
    refusal = Message("assistant", (part(b'{"type":"refusal","refusal":"no"}'),))
    opaque = OpaqueItem("compaction", msgspec.Raw(b'{"type":"compaction"}'))
    assert build_messages([opaque, USER, refusal, opaque]) == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "no"},
    ]


# ---------------------------------------------------------------------- step by step

few = st.sampled_from(["a", "b", "c"])
conversations: st.SearchStrategy[list[Item]] = st.lists(
    st.one_of(
        strategies.messages,
        st.builds(FunctionCall, few, few, strategies.texts),
        st.builds(CustomToolCall, few, few, strategies.texts),
        st.builds(FunctionCallOutput, few, strategies.texts),
        st.builds(CustomToolCallOutput, few, strategies.texts),
        st.builds(Reasoning, st.tuples(strategies.texts)),
        st.just(OpaqueItem("web_search_call", msgspec.Raw(b"{}"))),
        st.builds(
            lambda text, hides: Compaction(seal(Summary(text, (USER,), hides_earlier=hides))),
            strategies.texts,
            st.booleans(),
        ),
    ),
    max_size=12,
)
"""Few call ids, so that calls repeat them, outputs come late, twice, or for nobody."""


def shown(transcript: Transcript, instructions: str | None) -> list[dict[str, Any]]:
    pieces = [transcript.system(instructions), *transcript.pieces(), transcript.open_piece()]
    joined = b",".join(piece for piece in pieces if piece)
    messages: list[dict[str, Any]] = msgspec.json.decode(b"[" + joined + b"]")
    return messages


def whole(items: list[Item], instructions: str | None, reasoning: bool) -> Any:
    """What is to come out: the messages, or the refusal."""
    try:
        return build_messages(visible(items), instructions, include_reasoning=reasoning)
    except ApiError as error:
        return error.code, error.param


def continued(last: Transcript, items: list[Item], start: int) -> Transcript | tuple[Any, ...]:
    """``items`` from ``start`` on, after ``last``, as an engine does it; or the refusal."""
    try:
        step = last.extended(items[start:])
        if step is None:
            step = Transcript(include_reasoning=last.include_reasoning).extended(items)
    except ApiError as error:
        return error.code, error.param
    assert step is not None
    return step


@given(conversations, st.data(), st.none() | strategies.texts, st.booleans())
def test_steps_give_the_same_messages_as_the_whole(
    items: list[Item], data: st.DataObject, instructions: str | None, reasoning: bool
) -> None:
    """Wherever a conversation is cut, and with the whole worded anew where a step says so."""
    places = sorted(data.draw(st.lists(st.integers(0, len(items)), max_size=4)))
    transcript = Transcript(include_reasoning=reasoning)
    for start, end in itertools.pairwise([0, *places, len(items)]):
        expected = whole(items[:end], instructions, reasoning)
        step = continued(transcript, items[:end], start)
        if not isinstance(step, Transcript):
            assert expected == step
            return
        assert expected == shown(step, instructions)
        transcript = step


def test_a_step_words_its_own_items_only() -> None:
    """The earlier messages are the same bytes, not equal ones."""
    first = Transcript().extended([USER, message("assistant", "ok")])
    assert first is not None
    second = first.extended([USER])
    assert second is not None
    assert first.pieces()[0] is second.pieces()[0]
    assert second.piece.count(b"role") == 2  # the answer could have gone on until now
    assert second.num_bytes == len(second.piece)


def test_a_late_output_changes_what_was_closed() -> None:
    """Its call had been worded as interrupted; None says that all must be worded anew."""
    start = Transcript().extended([FunctionCall("a", "f", "{}"), FunctionCall("b", "f", "{}")])
    assert start is not None
    step = start.extended([FunctionCallOutput("a", "1")])
    assert step is not None
    assert NO_OUTPUT in str(shown(step, None))
    assert step.extended([FunctionCallOutput("b", "2")]) is None


def test_outputs_belong_to_the_latest_call_of_their_id() -> None:
    """Hosts that number the calls of each answer anew would have had all outputs overwritten."""
    items: list[Item] = [
        FunctionCall("0", "f", "{}"),
        FunctionCallOutput("0", "first"),
        FunctionCall("0", "f", "{}"),
        FunctionCallOutput("0", "second"),
    ]
    told = [m["content"] for m in build_messages(items) if m["role"] == "tool"]
    assert told == ["first", "second"]


def test_a_summary_that_hides_begins_anew() -> None:
    start = Transcript().extended([USER, message("assistant", "secret")])
    assert start is not None
    summary = Compaction(seal(Summary("short", hides_earlier=True)))
    step = start.extended([summary, USER])
    assert step is not None
    assert "secret" not in str(shown(step, None))
    assert len(shown(step, "rules")) == 3
