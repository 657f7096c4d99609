"""What a request is found to begin with is what the client has said, item by item."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tightloop.engine.interface import Node
from tightloop.protocol.item_chain import is_same, without_reasoning
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
    decode_input,
    encode_items,
    user_message,
)
from tightloop.server.known_histories import ITEM_BYTES, MAX_TRIES, KnownHistories, Match, known_end


def said(text: str) -> Message:
    return Message("assistant", (TextPart("output_text", text),), id="msg_1")


@dataclass
class Server:
    """Answers requests and remembers them as a server does."""

    histories: KnownHistories = field(default_factory=KnownHistories)
    number: int = 0

    def ask(self, items: Sequence[Item], answer: Sequence[Item], scope: str = "") -> Match | None:
        match, path = self.histories.match(items, scope)
        first = match.num_items if match else 0
        self.number += 1
        rest = tuple(items[first:])
        node = Node(f"resp_{self.number}", match.node if match else None, rest + tuple(answer))
        above = match.known if match else None
        known = known_end(node, len(rest), path, answer, scope=scope, tools=(), above=above)
        self.histories.add(known)
        return match


def nameless(item: Item) -> Item:
    if isinstance(item, OpaqueItem):
        return item
    without: Item = msgspec.structs.replace(item, id=None)
    return without


def resent(items: Sequence[Item]) -> list[Item]:
    """As another request brings them: equal, and not the same objects, without ids."""
    return [nameless(item) for item in decode_input(encode_items(items))]


HI = user_message("hi")
CALL = FunctionCall("call_1", "shell", '{"cmd": "ls"}')
RESULT = FunctionCallOutput("call_1", "a.py")


def test_a_history_is_found_whole_and_only_what_is_new_is_left() -> None:
    server = Server()
    assert server.ask([HI], [Reasoning(("plan",)), said("look"), CALL]) is None
    history: list[Item] = [HI, Reasoning(("plan",)), said("look"), CALL]
    found = server.ask(resent([*history, RESULT]), [said("done")])
    assert found is not None
    assert (found.node.id, found.num_items) == ("resp_1", 4)
    again = server.ask(resent([*history, RESULT, said("done"), user_message("more")]), [])
    assert again is not None
    assert (again.node.id, again.num_items) == ("resp_2", 6)
    assert again.node.parent is not None


def test_what_the_client_left_out_the_engine_does_not_see() -> None:
    """The node has the response's id, so that what is warm is found, and the client's words."""
    server = Server()
    server.ask([HI], [Reasoning(("plan",)), CALL])
    respelt = FunctionCall("call_1", "shell", '{"cmd":"ls"}')
    found = server.ask([HI, respelt, RESULT], [])
    assert found is not None
    assert Node("resp_1", None, (HI, respelt)) == found.node


def test_an_edited_history_is_found_as_far_as_it_is_the_same() -> None:
    server = Server()
    server.ask([HI], [said("one")])
    server.ask([HI, said("one"), user_message("b")], [said("two")])
    found = server.ask([HI, said("one"), user_message("b"), said("2"), user_message("c")], [])
    assert found is not None
    assert (found.node.id, found.num_items) == ("resp_1", 2)
    assert server.ask([user_message("ho"), said("one"), user_message("b")], []) is None


def test_a_request_sent_twice_goes_on_from_the_turn_before_it() -> None:
    """And each of two answers to one request is found."""
    server = Server()
    server.ask([HI], [said("one")])
    second = [HI, said("one"), user_message("b")]
    server.ask(second, [said("x")])
    twice = server.ask(second, [said("y")])
    assert twice is not None
    assert twice.node.id == "resp_1"
    for answer, name in (("x", "resp_2"), ("y", "resp_3")):
        found = server.ask([*second, said(answer), user_message("c")], [])
        assert found is not None
        assert found.node.id == name


def test_a_request_that_adds_nothing_is_not_below_what_it_repeats() -> None:
    server = Server()
    server.ask([HI], [])
    assert server.ask([HI], [said("one")]) is None
    found = server.ask([HI, user_message("b")], [])
    assert found is not None
    assert found.node.id == "resp_1"


def test_nobody_finds_what_another_has_said() -> None:
    server = Server()
    server.ask([HI], [said("one")], scope="a")
    more = [HI, said("one"), user_message("b")]
    assert server.ask(more, [], scope="b") is None
    assert server.ask(more, [], scope="a") is not None


def test_what_is_forgotten_is_not_found() -> None:
    """What goes on from it is: it holds the context itself."""
    server = Server()
    server.ask([HI], [said("one")])
    second = [HI, said("one"), user_message("b")]
    server.ask(second, [said("two")])
    server.histories.forget("resp_1")
    server.histories.forget("resp_unknown")
    found = server.ask([*second, said("two"), user_message("c")], [])
    assert found is not None
    assert found.node.id == "resp_2"
    assert server.ask(second, []) is None


def test_no_more_is_kept_than_allowed() -> None:
    """A conversation that grows is counted once."""
    server = Server(KnownHistories(max_known=2))
    for text in "abc":
        server.ask([user_message(text)], [said("one")])
    assert len(server.histories) == 2
    assert server.ask([user_message("a"), said("one"), HI], []) is None
    one_turn = 2 * ITEM_BYTES + 2000
    small = Server(KnownHistories(max_bytes=3 * one_turn))
    items: list[Item] = []
    for _ in range(3):
        items.append(user_message("x" * 1000))
        answer = said("y" * 1000)
        small.ask(items, [answer])
        items.append(answer)
    assert small.histories.num_bytes == 3 * one_turn
    assert len(small.histories) == 3
    small.ask([user_message("z")], [])
    assert small.histories.num_bytes <= 3 * one_turn
    assert len(small.histories) < 4


def test_a_history_that_is_like_none_is_not_compared_with_all() -> None:
    """Reasoning has no part in the hash: without it every later turn looks right and none is."""
    for num_turns in (MAX_TRIES - 1, MAX_TRIES):
        server = Server()
        server.ask([HI], [said("one")])
        items: list[Item] = [HI, said("one"), Reasoning(("plan",))]
        for number in range(num_turns):
            items += [user_message(f"{number}"), said("more")]
            server.ask(items[:-1], [items[-1]])
        del items[2]
        found = server.ask(resent([*items, HI]), [])
        assert (found is None) == (num_turns == MAX_TRIES)


def test_the_latest_stays_however_large() -> None:
    server = Server(KnownHistories(max_bytes=10))
    server.ask([user_message("x" * 1000)], [])
    assert len(server.histories) == 1
    server.ask([user_message("y" * 1000)], [])
    assert len(server.histories) == 1
    assert server.histories.num_bytes == ITEM_BYTES + 1000


LARGE = 100_000
IMAGE = OpaquePart("input_image", Raw(b'{"image_url":"%b"}' % (b"x" * LARGE)))


@pytest.mark.parametrize(
    "item",
    [
        Reasoning(("x" * LARGE,)),
        Reasoning((), "x" * LARGE),
        Reasoning((), None, None, ("x" * LARGE,)),
        Compaction("x" * LARGE),
        Message("user", (IMAGE,)),
        FunctionCallOutput("call_1", "", None, (IMAGE,)),
        CustomToolCallOutput("call_1", "", None, (IMAGE,)),
        CustomToolCall("call_1", "f", "x" * LARGE),
        FunctionCall("call_1", "f", "x" * LARGE),
        OpaqueItem("x", IMAGE.raw),
        user_message("\N{GRINNING FACE}" + "x" * (LARGE // 4)),
        Message("user", (TextPart("input_text", ""),) * (LARGE // 100)),
    ],
    ids=lambda item: type(item).__name__,
)
def test_whatever_is_large_counts(item: Item) -> None:
    """In what a client says, in what a model says, and in an answer as it comes back."""
    for items, answer in (([item], []), ([HI], [item])):
        server = Server()
        server.ask(items, answer)
        assert server.histories.num_bytes > LARGE


def test_an_answer_that_came_back_in_other_words_is_held_twice() -> None:
    """As it was made, where the turn that made it ends, and as it came back, below the next one."""
    server = Server()
    thought = Reasoning(("x" * LARGE,))
    other = Reasoning(("y" * LARGE * 2,))
    first: list[Item] = [HI]
    server.ask(first, [thought, said("one")])
    once = server.histories.num_bytes
    server.ask([*first, said("one"), user_message("b")], [])
    assert server.histories.num_bytes > once
    server = Server()
    server.ask(first, [thought, said("one")])
    server.ask([*first, other, said("one"), user_message("b")], [])
    assert server.histories.num_bytes > 3 * LARGE
    server.histories.forget("resp_2")
    assert server.histories.num_bytes == once
    server.histories.forget("resp_1")
    assert server.histories.num_bytes == 0


ANSWERS: st.SearchStrategy[list[Item]] = st.lists(
    st.one_of(
        st.sampled_from("ab").map(said),
        st.sampled_from("pq").map(lambda text: Reasoning((text,))),
        st.sampled_from(["call_1", "call_2"]).map(lambda name: FunctionCall(name, "f", '{"a": 1}')),
    ),
    max_size=3,
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["go on", "say again", "edit", "cut", "forget thoughts", "respell"]),
        st.integers(0, 9),
        st.booleans(),
        ANSWERS,
    ),
    max_size=14,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_an_engine_sees_exactly_what_the_client_says(
    steps: list[tuple[str, int, bool, list[Item]]],
) -> None:
    """Whatever clients do with their history, and whether items are the same objects or not."""
    server = Server(KnownHistories(max_known=6))
    items: list[Item] = [HI]
    for act, number, is_new, answer in steps:
        place = number % len(items)
        if act == "edit":
            items[place] = user_message("edited")
        elif act == "cut":
            items = items[: place + 1]
        elif act == "forget thoughts":
            items = list(without_reasoning(items)) or [HI]
        elif act == "respell" and isinstance(items[place], FunctionCall):
            items[place] = FunctionCall("call_1", "f", '{"a":1}')
        elif act == "go on":
            items.append(FunctionCallOutput(f"call_{number % 2}", "out"))
        if is_new:
            items = resent(items)
        match = server.ask(items, answer)
        first = match.num_items if match else 0
        seen = [*(match.node.context() if match else []), *items[first:]]
        assert len(items) == len(seen)
        assert all(map(is_same, items, seen))
        assert first < len(items)
        items += answer
