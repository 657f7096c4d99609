"""Wordings that are kept by node, against wording everything each time."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from hypothesis import given
from hypothesis import strategies as st

from tests.engine.collecting import request
from tightloop.engine.interface import GenerationRequest, Node
from tightloop.engine.remote.kept import Transcripts
from tightloop.protocol.items import Item, Message, user_message


@dataclass(frozen=True, slots=True)
class Words:
    """Texts so far. A text that begins with ``!`` changes what came before: it must start anew."""

    texts: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    log: tuple[list[int], ...] = ()

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.new))

    def extended(self, items: Sequence[Item]) -> Self | None:
        new = tuple(item.text for item in items if isinstance(item, Message))
        if self.texts and any(text.startswith("!") for text in new):
            return None
        for log in self.log:
            log.append(len(new))
        return type(self)(self.texts + new, new, self.log)


def whole(asked: GenerationRequest) -> tuple[str, ...]:
    return tuple(item.text for item in asked.context() if isinstance(item, Message))


steps = st.lists(
    st.tuples(
        st.integers(0, 20),  # which node is continued
        st.lists(st.sampled_from(["a", "bb", "!c"]), max_size=3),
        st.lists(st.sampled_from(["x", "!y"]), max_size=2),
        st.booleans(),  # whether the node's first items are the same objects
    ),
    max_size=12,
)


@given(steps, st.integers(0, 40))
def test_any_tree_is_worded_as_a_whole(
    grown: list[tuple[int, list[str], list[str], bool]], max_bytes: int
) -> None:
    """Forks, items that were read from disk again, nodes that were never asked for here."""
    kept = Transcripts(Words(), max_bytes=max_bytes)
    nodes: list[Node | None] = [None]
    numbers = itertools.count()
    for place, asked_texts, said_texts, is_same in grown:
        parent = nodes[place % len(nodes)]
        items = tuple(map(user_message, asked_texts))
        asked = replace(request(items), parent=parent, response_id=f"r{next(numbers)}")
        if is_same or not said_texts:
            assert kept.of(asked).texts == whole(asked)
        assert kept.num_bytes <= max(max_bytes, 0)
        if not is_same:
            items = tuple(map(user_message, asked_texts))
        nodes.append(Node(asked.response_id, parent, (*items, *map(user_message, said_texts))))


def test_a_turn_words_its_new_items_only() -> None:
    """The request's items when it is asked, its output when it is continued."""
    log: list[int] = []
    kept = Transcripts(Words(log=(log,)))
    parent: Node | None = None
    for n in range(5):
        asked = replace(request([user_message("q")] * 2), parent=parent, response_id=f"r{n}")
        kept.of(asked)
        parent = Node(asked.response_id, parent, (*asked.items, user_message("a")))
    assert log == [2, *(1, 2) * 4]


def test_a_refused_request_leaves_what_was_kept() -> None:
    class Refuse(Exception):
        pass

    @dataclass(frozen=True, slots=True)
    class Strict:
        num_bytes: int = 1

        def extended(self, items: Sequence[Item]) -> "Strict":
            if items and isinstance(items[-1], Message) and items[-1].text == "bad":
                raise Refuse
            return Strict()

    kept = Transcripts(Strict())
    kept.of(request("good", name="r1"))
    before = kept.num_bytes
    try:
        kept.of(request("bad", name="r2"))
    except Refuse:
        assert kept.num_bytes == before
    else:
        raise AssertionError("it must be refused")


def test_a_node_that_was_read_again_belongs_to_the_newer_tree() -> None:
    """Its first tree may outlive the second one, and is given up without it."""
    kept = Transcripts(Words(), max_bytes=10)

    def asked(name: str, text: str, parent: Node | None) -> GenerationRequest:
        return replace(request((user_message(text),)), parent=parent, response_id=name)

    def node(one: GenerationRequest) -> Node:
        return Node(one.response_id, one.parent, one.items)

    root = asked("root", "aa", None)
    child = asked("child", "bb", node(root))
    for one in (root, child):
        kept.of(one)
    again = Node("root", None, (user_message("aa"),))
    kept.of(asked("fork", "cc", again))
    kept.of(asked("grandchild", "d", node(child)))
    for number in range(3):
        words = kept.of(asked(f"other{number}", "eeeeeeee", None))
        assert words.texts == ("eeeeeeee",)
        assert kept.num_bytes <= 10
