"""Items as a client sends them again: which are the same, and a hash of a list that grows.

A client that keeps the conversation itself sends all of it with every request, in its own words: ids
that this package gave are dropped or changed, arguments of calls are written as JSON anew, reasoning is
left out. ``link`` gives what is the same in all of these the same hash. It only finds candidates:
two lists with one hash are compared item by item (``is_same``), so a collision costs time, no more.

The hash is Python's own: keyed by chance in each process, and kept by a text once it was computed, so
an item that is still the same object costs no look at its text.
"""

import json
from collections.abc import Iterable, Sequence

import msgspec

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
    Part,
    Reasoning,
    TextPart,
)


def link(before: int, item: Item) -> int:
    """The hash of a list that ends with ``item``; ``before`` is that of the list without it.

    Reasoning does not count: clients leave it out when they like. Nor do a call's arguments, which may
    come back in another spelling; its id stands for them.
    """
    kind = type(item)
    if kind is FunctionCallOutput or kind is CustomToolCallOutput:
        return hash((before, item.call_id, item.output))  # type: ignore[union-attr]
    if kind is FunctionCall or kind is CustomToolCall:
        return hash((before, kind, item.call_id, item.name))  # type: ignore[union-attr]
    if kind is Message:
        return hash((before, item.role, item.text))  # type: ignore[union-attr]
    if kind is OpaqueItem:
        return hash((before, bytes(item.raw)))  # type: ignore[union-attr]
    if kind is Compaction:
        return hash((before, item.encrypted_content))  # type: ignore[union-attr]
    return before


def chain(before: int, items: Iterable[Item]) -> int:
    """``link`` for each of the items in turn."""
    for item in items:
        before = link(before, item)
    return before


def is_same(one: Item, other: Item) -> bool:
    """Whether an engine is told the same by both: ids and the types of text parts may differ."""
    if one is other:
        return True
    if isinstance(one, Message) and isinstance(other, Message):
        same = one.role == other.role and one.phase == other.phase
        return same and _parts(one.content) == _parts(other.content)
    if isinstance(one, FunctionCall) and isinstance(other, FunctionCall):
        return _call(one) == _call(other) and one.arguments == other.arguments
    if isinstance(one, CustomToolCall) and isinstance(other, CustomToolCall):
        return _call(one) == _call(other) and one.input == other.input
    if isinstance(one, FunctionCallOutput) and isinstance(other, FunctionCallOutput):
        return _output(one) == _output(other)
    if isinstance(one, CustomToolCallOutput) and isinstance(other, CustomToolCallOutput):
        return _output(one) == _output(other)
    if isinstance(one, Reasoning) and isinstance(other, Reasoning):
        return _reasoning(one) == _reasoning(other)
    if isinstance(one, Compaction) and isinstance(other, Compaction):
        return one.encrypted_content == other.encrypted_content
    return one == other


def are_same(ones: Sequence[Item], others: Sequence[Item]) -> bool:
    """``is_same`` for each pair, and none is left over."""
    if ones == others:  # nearly always; the same objects are not looked into
        return True
    return len(ones) == len(others) and all(map(is_same, ones, others))


def answers(given: Sequence[Item], made: Sequence[Item]) -> bool:
    """Whether ``given`` is how a client sends the answer ``made`` again.

    Beyond what ``is_same`` allows it may leave reasoning out or change it, join the texts of a message,
    forget its ``phase``, and write the arguments of a call, which are JSON, in another way. ``made`` holds no reasoning.
    """
    said = [item for item in given if type(item) is not Reasoning]
    return len(said) == len(made) and all(map(_is_answer, said, made))


def without_reasoning(items: Iterable[Item]) -> tuple[Item, ...]:
    """The items that ``link`` counts."""
    return tuple([item for item in items if type(item) is not Reasoning])


def in_one_message(items: Iterable[Item]) -> tuple[Item, ...]:
    """An answer as a message of Chat Completions holds it: one text, then the calls."""
    said = without_reasoning(items)
    texts = [item for item in said if isinstance(item, Message)]
    return _joined(texts) + tuple([item for item in said if not isinstance(item, Message)])


def in_blocks(items: Iterable[Item]) -> tuple[Item, ...]:
    """An answer as a message of blocks holds it: texts that meet are one, the rest is in its place."""
    blocks: list[Item] = []
    texts: list[Message] = []
    for item in without_reasoning(items):
        if isinstance(item, Message):
            texts.append(item)
            continue
        blocks += (*_joined(texts), item)
        texts.clear()
    return (*blocks, *_joined(texts))


def _joined(messages: Sequence[Message]) -> tuple[Item, ...]:
    if len(messages) < 2:
        return tuple(messages)
    parts = [part for message in messages for part in message.content]
    return (msgspec.structs.replace(messages[0], content=tuple(parts)),)


def _is_answer(given: Item, made: Item) -> bool:
    if is_same(given, made):
        return True
    if isinstance(given, FunctionCall) and isinstance(made, FunctionCall):
        if _call(given) != _call(made):
            return False
        try:
            return _value(given.arguments) == _value(made.arguments)
        except (ValueError, RecursionError):  # the latter: nested too deep to compare
            return False
    if isinstance(given, Message) and isinstance(made, Message):
        return given.role == made.role and _joined_parts(given) == _joined_parts(made)
    return False


def _value(text: str) -> object:
    """What the JSON says. Numbers are as written: in Python 1 is True, and large ones lose digits."""
    return json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_refuse)


def _number(text: str) -> tuple[str]:
    return (text,)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _joined_parts(message: Message) -> object:
    """Its one text, or its parts where there is more than text."""
    if all(type(part) is TextPart for part in message.content):
        return message.text
    return _parts(message.content)


def _parts(parts: Sequence[Part]) -> object:
    return [
        (part.type, bytes(part.raw)) if isinstance(part, OpaquePart) else part.text
        for part in parts
    ]


def _call(item: FunctionCall | CustomToolCall) -> tuple[str, str, str | None]:
    return item.call_id, item.name, item.namespace


def _output(item: FunctionCallOutput | CustomToolCallOutput) -> tuple[object, ...]:
    return item.call_id, item.output, item.parts


def _reasoning(item: Reasoning) -> tuple[object, ...]:
    return item.summary, item.content, item.encrypted_content
