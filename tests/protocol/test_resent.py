"""A body that goes on from another is decoded to what it would be decoded to by itself."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.protocol.chat_inbound import ChatDecoder
from tightloop.protocol.errors import ApiError
from tightloop.protocol.messages_inbound import MessagesDecoder
from tightloop.protocol.requests import RequestDecoder
from tightloop.protocol.resent import MIN_BYTES, NUM_LOOSE, Resent

Decode = Callable[[bytes], Any]

PAD = "x" * MIN_BYTES


def responses() -> Decode:
    return RequestDecoder(resends=True).decode


def chat() -> Decode:
    return ChatDecoder().decode


def messages() -> Decode:
    return MessagesDecoder().decode


def outcome(decode: Decode, body: bytes) -> object:
    """What a body is decoded to, or all that its refusal says."""
    try:
        return decode(body)
    except ApiError as error:
        return (error.status, error.code, error.param, error.message)


def item(text: str, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **fields}


def pair(number: int, text: str = "") -> list[dict[str, Any]]:
    """A call and its output in the Responses API."""
    name = f"call_{number}"
    return [
        {"type": "function_call", "call_id": name, "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": name, "output": text},
    ]


def chat_pair(number: int, text: str = "") -> list[dict[str, Any]]:
    call = {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }
    return [
        {"role": "assistant", "content": f"{number}", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": text},
    ]


def block_pair(number: int, text: str = "") -> list[dict[str, Any]]:
    call = {"type": "tool_use", "id": f"call_{number}", "name": "f", "input": {"a": number}}
    output = {"type": "tool_result", "tool_use_id": call["id"], "content": text}
    said = [{"type": "text", "text": f"{number}"}, call]
    return [{"role": "assistant", "content": said}, {"role": "user", "content": [output]}]


def request(field: str, elements: Sequence[object], **fields: Any) -> bytes:
    extra = {"max_tokens": 9} if field == "messages" else {}
    return json.dumps({"model": "m", **extra, **fields, field: elements, "stream": True}).encode()


DIALECTS = pytest.mark.parametrize(
    ("make", "field", "turn"),
    [(responses, "input", pair), (chat, "messages", chat_pair), (messages, "messages", block_pair)],
)


@DIALECTS
def test_a_conversation_that_grows_is_decoded_as_ever(
    make: Callable[[], Decode], field: str, turn: Callable[..., list[Any]]
) -> None:
    """And its earlier items are the same objects, so nothing of them was read again."""
    decode = make()
    elements: list[Any] = [item(PAD)]
    before: tuple[Any, ...] = ()
    for number in range(3 * NUM_LOOSE):
        elements += turn(number, "ü" * 500)
        asked = decode(request(field, elements))
        assert make()(request(field, elements)) == asked
        items = items_of(asked)
        assert all(map(lambda one, other: one is other, before, items))
        before = items


@DIALECTS
def test_what_is_wrong_is_named_by_its_own_number(
    make: Callable[[], Decode], field: str, turn: Callable[..., list[Any]]
) -> None:
    decode = make()
    elements: list[Any] = [item(PAD), *turn(1)]
    decode(request(field, elements))
    wrong = request(field, [*elements, *turn(2), {"role": "user", "content": 5}])
    found = outcome(decode, wrong)
    assert outcome(make(), wrong) == found
    assert isinstance(found, tuple)
    assert f"{field}[5]" in str(found[2])


@DIALECTS
@pytest.mark.parametrize(
    "tail", [b",]}", b"]", b"", b',{"role":"user"', b"]]}", b"}", b"]} x", b' , {"role":"user"}]}']
)
def test_a_broken_end_is_refused_as_it_would_be_whole(
    make: Callable[[], Decode], field: str, turn: Callable[..., list[Any]], tail: bytes
) -> None:
    decode = make()
    whole = request(field, [item(PAD), *turn(1), item("b")])
    decode(whole)
    broken = whole[: whole.rindex(b"]")] + tail
    assert outcome(make(), broken) == outcome(decode, broken)


@DIALECTS
def test_other_places_with_the_name_of_the_list_do_no_harm(
    make: Callable[[], Decode], field: str, turn: Callable[..., list[Any]]
) -> None:
    """The name in another object, in a text, twice: what is decoded is what a parser sees."""
    decode = make()
    inner = {field: [item(PAD), *turn(1)]}
    for number in (1, 2):
        elements = [item(PAD), *turn(1), item("b"), *[item("c")] * number]
        for body in (
            request(field, elements, extra=inner),
            request(field, elements, extra=json.dumps(inner)),
            request(field, elements)[:-1] + f',"{field}":{json.dumps([item("z")])}}}'.encode(),
            request(field, elements)[:-1] + f',"{field}":{json.dumps(elements[:2])}}}'.encode(),
        ):
            assert outcome(make(), body) == outcome(decode, body)
            assert outcome(make(), body) == outcome(decode, body)


def test_an_element_may_not_go_on() -> None:
    """Only objects end where they seem to."""
    decode = responses()
    decode(request("input", [item(PAD), item("a")]))
    number = b'{"model":"m","input":[' + json.dumps(item(PAD)).encode() + b",1"
    assert outcome(decode, number + b"]}") == outcome(responses(), number + b"]}")
    assert outcome(decode, number + b"2]}") == outcome(responses(), number + b"2]}")


def test_calls_without_ids_belong_to_the_message_they_are_in() -> None:
    """The old form of Chat Completions: an output finds its call by the name alone."""
    call = {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}
    decode = chat()
    elements = [item(PAD), call]
    decode(request("messages", elements))
    body = request("messages", [*elements, {"role": "function", "name": "f", "content": "x"}])
    assert outcome(chat(), body) == outcome(decode, body)


def test_a_mark_moves_to_the_newest_block() -> None:
    """As with Claude Code: the messages before it are still not read again."""
    decode = messages()
    first = [item(PAD), item("a", content=[{"type": "text", "text": "a", "cache_control": {}}])]
    before = items_of(decode(request("messages", first)))
    second = [item(PAD), item("a", content=[{"type": "text", "text": "a"}]), *block_pair(1)]
    after = items_of(decode(request("messages", second)))
    assert before[0] is after[0]
    assert before[1] == after[1]


def test_agents_that_take_turns_keep_their_tools() -> None:
    """Decoded once each, though each comes between two requests of the others."""
    decode = responses()

    def tools(name: str) -> Any:
        return decode(
            request("input", [item("hi")], tools=[{"type": "function", "name": name}])
        ).tools

    before = [tools(name) for name in "abc"]
    assert all(map(lambda one, other: one is other, before, [tools(name) for name in "abc"]))
    many = [tools(f"t{number}") for number in range(32)]
    assert many == [tools(f"t{number}") for number in range(32)]


def test_nothing_is_compared_with_what_another_client_sent() -> None:
    resent = Resent("input")
    body = request("input", [item(PAD), item("a")])
    longer = request("input", [item(PAD), item("a"), item("b")])
    resent.keep(body, (), (0, 0), "one")
    assert resent.shorten(longer, "other") is None
    short = resent.shorten(longer, "one")
    assert short is not None
    assert short.num_elements == 2
    assert len(short.text) < 200
    assert resent.rest(b"[" + resent.mark + b', {"a":1}]') == b'[ {"a":1}]'
    assert resent.rest(b"[" + resent.mark + b"]") == b"[]"
    assert resent.rest(b'[{"role":"user"}]') is None


def test_no_more_is_kept_than_allowed() -> None:
    """A conversation that goes on takes the place of its beginning; short ones are not kept."""
    few = Resent("input", max_bodies=2)
    bodies = [request("input", [item(PAD + letter), item("a")]) for letter in "abc"]
    for body in bodies:
        few.keep(body, (), (0, 0))
    more = [body.replace(b"]", b', {"role": "user"}]') for body in bodies]
    assert [few.shorten(body) is not None for body in more] == [False, True, True]
    small = Resent("input", max_bytes=2 * len(bodies[0]))
    for body in bodies:
        small.keep(body, (), (0, 0))
    assert small.num_bytes <= 2 * len(bodies[0])
    small.keep(b"x" * (MIN_BYTES - 1), (), ())
    assert small.shorten(b"x" * (MIN_BYTES - 1)) is None


def test_what_stands_before_the_list_counts() -> None:
    """A client may send megabytes of instructions, again and again."""
    resent = Resent("input", max_bytes=4 * len(PAD))
    for number in range(9):
        body = request("input", [item("a" * MIN_BYTES), item("b")], head=f"{number}{PAD}")
        resent.keep(body, (), (0, 0))
        assert resent.shorten(body) is not None  # it is taken apart now
        assert 2 * len(PAD) < resent.num_bytes <= 4 * len(PAD)


@DIALECTS
def test_much_space_and_many_small_elements(
    make: Callable[[], Decode], field: str, turn: Callable[..., list[Any]]
) -> None:
    """Taken apart in one pass over the bytes, and what comes after them is read at its place."""
    body = request(field, [item("a")] * 4_000 + turn(1))
    for old, new in ((b"}, {", b"} , {"), (b"[{", b"[" + b" " * (1 << 20) + b"{")):
        decode = make()
        spaced = body.replace(old, new, 1)
        assert decode(spaced) == make()(spaced)
        more = spaced.replace(b'"stream"', b'"stream" ').replace(b"}], ", b"}, 5], ")
        assert outcome(make(), more) == outcome(decode, more)
        longer = spaced.replace(b"}], ", b"}, " + json.dumps(item("z")).encode() + b"], ")
        assert items_of(decode(longer))[0] is items_of(decode(spaced))[0]
        assert decode(longer) == make()(longer)


def test_a_text_that_was_mended_stays_with_its_client() -> None:
    """A lone surrogate is replaced, and the mended body is kept for the same client."""
    decoder = ChatDecoder()
    broken = request("messages", [item(PAD), item("b"), item("\ud800")])
    assert "\\ud800" in broken.decode()
    mended = request("messages", [item(PAD), item("b"), item("\ufffd"), item("c")])
    theirs = items_of(decoder.decode(broken, "one"))
    assert items_of(decoder.decode(mended, ""))[0] is not theirs[0]


FRAGMENTS = [
    b"",
    b",",
    b"NaN",
    b"\xff",
    b'"\xff"',
    b'{"role":"user","content":"\xff"}',
    b'{"role":"user","content":"\\ud800"}',
    b'{"role":"user","content":"x","role":"assistant"}',
    b'{"role":"user","content":"x","n":NaN}',
    b'{"role":"user","content":"x","n":1e999}',
    b'{"role":"user","content":"x","n":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"role":"user"}',
    b'],"input":[',
    b'],"messages":[{"role":"user","content":"x"}',
    b"null",
    b"]",
    b"}",
    b"\n\t ",
    b"\0",
    b"\\",
]


@DIALECTS
@settings(max_examples=150, deadline=None)
@given(
    fragments=st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=3),
    place=st.integers(0, 400),
    num_cut=st.integers(0, 3),
    with_comma=st.booleans(),
    from_end=st.booleans(),
)
def test_bytes_that_are_put_anywhere_are_read_as_in_a_body_by_itself(
    make: Callable[[], Decode],
    field: str,
    turn: Callable[..., list[Any]],
    fragments: list[bytes],
    place: int,
    num_cut: int,
    with_comma: bool,
    from_end: bool,
) -> None:
    """Duplicate keys, broken texts, numbers that are none, nesting: the same refusal, the same items."""
    decode = make()
    body = request(field, [item(PAD), *turn(1), item("b"), *turn(2)])
    start = len(body) - place if from_end else body.index(PAD.encode()) + len(PAD) + place
    start = max(0, min(start, len(body)))
    decode(body)
    decode(body)
    comma = b"," if with_comma else b""
    wrong = body[:start] + comma + comma.join(fragments) + body[start + num_cut :]
    found = outcome(decode, wrong)
    assert outcome(make(), wrong) == found
    assert outcome(decode, wrong) == found  # it may have been kept by now
    assert outcome(decode, body) == outcome(make(), body)


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "edit", "cut", "head", "space"]), st.integers(0, 9)
    ),
    max_size=24,
)


@DIALECTS
@settings(max_examples=60, deadline=None)
@given(edits=EDITS)
def test_whatever_a_client_does_with_its_history(
    make: Callable[[], Decode],
    field: str,
    turn: Callable[..., list[Any]],
    edits: list[tuple[str, int]],
) -> None:
    """The decoder that has seen it all and one that has seen nothing give the same."""
    decode = make()
    elements: list[Any] = [item(PAD)]
    head: dict[str, Any] = {}
    separators = (", ", ": ")
    for number, (edit, place) in enumerate(edits):
        if edit == "add":
            elements += turn(number, "é" * place)
        elif edit == "edit":
            elements[place % len(elements)] = item(f"edited {number}")
        elif edit == "cut":
            del elements[1 + place :]
        elif edit == "head":
            head = {"temperature": place / 10}
        else:
            separators = (",", ":") if place % 2 else (", ", ": ")
        body = json.dumps(json.loads(request(field, elements, **head)), separators=separators)
        assert outcome(make(), body.encode()) == outcome(decode, body.encode())


def items_of(decoded: Any) -> tuple[Any, ...]:
    """The items of a request in any dialect."""
    asked = getattr(decoded, "asked", None) or getattr(decoded, "request", None) or decoded
    items: tuple[Any, ...] = asked.input
    return items
