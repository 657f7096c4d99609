"""A conversation that goes on through any number of compactions, whole at every request."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.agent.cutting import is_whole
from tests.agent.tools.test_exec_command import Recorded
from tightloop.agent.compaction import (
    HANDOVER,
    QUESTION,
    Gauge,
    Window,
    take_apart,
    users_words,
    without_model,
)
from tightloop.agent.events import Compacted, Event
from tightloop.agent.loop import Agent
from tightloop.agent.tools.exec_command import ExecCommand
from tightloop.agent.tools.interface import ToolContext
from tightloop.agent.turn import Limits, Status
from tightloop.client.scripted import Reply, ScriptedTransport, call_reply, text_reply
from tightloop.client.session import Session
from tightloop.client.transport import TransportError
from tightloop.harness.past import load
from tightloop.harness.record import Record
from tightloop.protocol.deltas import Finished, FinishReason, Usage
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    Reasoning,
    TextPart,
    decode_item,
    user_message,
)
from tightloop.sandbox.interface import CommandResult

RULES = Message("developer", (TextPart("input_text", "AGENTS.md: be tidy"),))


def size(item: Item) -> int:
    return Gauge().estimate([item])


def context(requests: Sequence[dict[str, Any]]) -> list[Item]:
    """What the model sees after the last of the requests, as the ids of the scripted transport chain them."""
    items: list[Item] = []
    for request in requests:
        if "previous_response_id" not in request:
            items = []
        items += [decode_item(item) for item in request["input"]]
    return items


class Talk:
    """A conversation with a model that has a small window and counts its tokens."""

    def __init__(
        self,
        window: int | None,
        *,
        summary: Reply | None = None,
        compact_at: float | None = 0.8,
        seed: int = 0,
        max_calls: int = 4,
    ) -> None:
        self.window = window
        self.summary = text_reply("it was about f") if summary is None else summary
        self.random = random.Random(seed)
        self.num_calls = self.num_asked = self.num_summaries = 0
        self.max_calls = max_calls
        self.seen: list[Item] = []
        self.heard: list[Event] = []
        self.sandbox = Recorded()
        self.transport = ScriptedTransport(self.reply)
        tool = ExecCommand()
        self.agent = Agent(
            Session(self.transport, model="scripted", tools=[tool.definition()]),
            [tool],
            ToolContext(Path("/ws"), self.sandbox),
            opening=[RULES],
            window=Window(window if compact_at is not None else None),
            limits=Limits(compact_at=compact_at, max_turns=400),
            listener=self.heard.append,
        )

    def reply(self, request: dict[str, Any]) -> Reply:
        """Checks what it is asked, and does something at random."""
        if "previous_response_id" not in request:
            self.seen = []
        self.seen += [decode_item(item) for item in request["input"]]
        num_tokens = sum(map(size, self.seen))
        assert is_whole(self.seen), "a call without its output, or the other way round"
        if self.window is not None and num_tokens > self.window:
            self.seen = []
            text = f"{num_tokens} tokens do not fit in the context window of {self.window}"
            return ApiError(text, code="context_length_exceeded")
        newest = self.seen[-1]
        if isinstance(newest, Message) and newest.text.startswith(QUESTION):
            self.num_summaries += 1
            assert request["tool_choice"] == "none"
            self.seen = []  # it is no part of the conversation
            return self.summary
        assert self.seen[0] == RULES, "the opening stays byte for byte"
        assert sum(isinstance(i, Message) and i.text.startswith(HANDOVER) for i in self.seen) <= 1
        self.num_asked += 1
        if self.random.random() < 0.75 and self.num_calls < self.max_calls:
            self.num_calls += 1
            length = self.random.choice([10, 300, 2000])
            self.sandbox.result = CommandResult(0, "x" * length, 0, 1)
            reply = call_reply("exec_command", {"cmd": "make"}, f"call_{self.num_asked}")
        else:
            self.num_calls = 0
            reply = text_reply(f"answer {self.num_asked}")
        told = _items_of(reply, self.num_asked)
        self.seen += told
        return [*reply, Finished(FinishReason.STOP, Usage(num_tokens, 0, sum(map(size, told))))]

    def compactions(self) -> list[Compacted]:
        return [event for event in self.heard if isinstance(event, Compacted)]


def _items_of(reply: Any, number: int) -> list[Item]:
    if len(reply) == 1:
        return [Message("assistant", (TextPart("output_text", f"answer {number}"),))]
    return [FunctionCall(f"call_{number}", "exec_command", '{"cmd":"make"}')]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
async def test_a_long_conversation_through_many_compactions(seed: int) -> None:
    """Every request is whole and fits, or is made to; the user's newest words are always there."""
    talk = Talk(3000, seed=seed)
    for number in range(30):
        result = await talk.agent.run_turn(f"task {number}")
        assert result.status is Status.COMPLETED, result.message
        texts = [item.text for item in talk.agent.items if isinstance(item, Message)]
        assert f"task {number}" in texts
        assert is_whole(talk.agent.items)
        assert len({id(item) for item in talk.agent.items}) == len(talk.agent.items)
    assert len(talk.compactions()) >= 3
    assert all(event.tokens_after < event.tokens_before for event in talk.compactions())
    assert {event.reason for event in talk.compactions()} <= {"window", "overflow"}


@pytest.mark.parametrize("seed", range(5))
async def test_an_unknown_window_is_learnt_from_an_overflow(seed: int) -> None:
    talk = Talk(2500, compact_at=None, seed=seed)
    for number in range(15):
        assert (await talk.agent.run_turn(f"task {number}")).status is Status.COMPLETED
    assert talk.compactions()[0].reason == "overflow"
    assert talk.agent.context_use.window == 2500


@pytest.mark.parametrize(
    "summary",
    [
        [Finished(FinishReason.STOP, Usage())],
        ApiError("no summaries", status=400),
        ApiError("too long", code="context_length_exceeded"),
    ],
)
async def test_without_a_summary_the_last_steps_stand_for_the_past(summary: Reply) -> None:
    """A conversation can always go on."""
    talk = Talk(3000, summary=summary)
    for number in range(12):
        assert (await talk.agent.run_turn(f"task {number}")).status is Status.COMPLETED
    (handover,) = [
        item.text
        for item in talk.agent.items
        if isinstance(item, Message) and item.text.startswith(HANDOVER)
    ]
    assert "No model could sum this up" in handover


async def test_compaction_when_asked(tmp_path: Path) -> None:
    """Between turns, with what the user wants kept; the next request is a new, short chain."""
    talk = Talk(None, max_calls=1)
    for number in range(6):
        await talk.agent.run_turn(f"task {number} " + "word " * 3000)
    event = await talk.agent.compact("keep the names")
    asked = talk.transport.requests[-1]["input"][-1]["content"][0]["text"]
    assert asked.endswith("The user adds: keep the names")
    assert event == talk.compactions()[-1]
    assert event.reason == "asked"
    assert event.tokens_after < 0.6 * event.tokens_before
    await talk.agent.run_turn("and on")
    request = talk.transport.requests[-1]
    first = next(r for r in talk.transport.requests[::-1] if "previous_response_id" not in r)
    assert decode_item(first["input"][0]) == RULES
    assert "previous_response_id" not in first
    assert request["tools"] == talk.transport.requests[0]["tools"]


async def test_a_compaction_that_fails_leaves_the_conversation_as_it_was() -> None:
    """And so does one that is cancelled: nothing is changed before the summary is there."""
    talk = Talk(None, max_calls=0)
    await talk.agent.run_turn("task")
    before = talk.agent.items
    talk.summary = ApiError("broken", status=401)
    await talk.agent.compact()
    assert talk.agent.items[0] == RULES
    talk = Talk(None, max_calls=0)
    talk.agent._repeats._patience = Limits().patience.__class__(max_tries=0)
    await talk.agent.run_turn("task")
    before = talk.agent.items
    talk.summary = TransportError("gone")
    with pytest.raises(TransportError):
        await talk.agent.compact()
    assert talk.agent.items == before
    assert not talk.agent.is_running


async def test_a_steer_while_compacting_goes_out_with_the_next_request() -> None:
    talk = Talk(3000, max_calls=3)
    plain = talk.reply

    def reply(request: dict[str, Any]) -> Reply:
        text = request["input"][-1].get("content", [{}])[0].get("text", "")
        if text.startswith(QUESTION):
            talk.agent.steer("mind the gap")
        return plain(request)

    talk.transport._replies = reply
    for number in range(12):
        await talk.agent.run_turn(f"task {number}")
    texts = [item.text for item in talk.agent.items if isinstance(item, Message)]
    asked = [r for r in talk.transport.requests if "mind the gap" in str(r["input"])]
    assert talk.num_summaries
    assert len(asked) >= talk.num_summaries
    assert texts[-1].startswith("answer")


async def test_the_record_survives_it(tmp_path: Path) -> None:
    """What is loaded is the conversation as it went on."""
    talk = Talk(None, max_calls=2)
    record = Record(tmp_path, "t1", str, repository="/r", model="m")
    talk.agent._keeper = record
    talk.agent._round._keep = record.done
    talk.agent._dispatcher._keep = record.done
    for number in range(4):
        await talk.agent.run_turn(f"task {number} " + "word " * 3000)
    await talk.agent.compact()
    await talk.agent.run_turn("and on")
    record.close()
    past = load(tmp_path, "t1")
    assert len(past.items) == len(talk.agent.items)
    assert is_whole(list(past.items))
    assert past.items[0] == RULES


calls = st.sampled_from(["call", "custom", "reasoned", "pair", "user", "assistant"])


def made(kinds: Sequence[str]) -> list[Item]:
    items: list[Item] = [RULES]
    for n, kind in enumerate(kinds):
        if kind == "user":
            items.append(user_message(f"user {n}"))
        elif kind == "assistant":
            items.append(Message("assistant", (TextPart("output_text", f"said {n}"),)))
        elif kind == "custom":
            items += [
                CustomToolCall(f"c{n}", "apply_patch", "x"),
                CustomToolCallOutput(f"c{n}", "y"),
            ]
        elif kind == "pair":
            items += [FunctionCall("a", "t", "{}"), FunctionCall(f"b{n}", "t", "{}")]
            items += [FunctionCallOutput("a", "1"), FunctionCallOutput(f"b{n}", "2")]
        else:
            if kind == "reasoned":
                items.append(Reasoning(("why",)))
            items += [FunctionCall("a", "t", "{}"), FunctionCallOutput("a", "out")]
    return items


@given(st.lists(calls, max_size=14), st.integers(0, 300))
def test_what_is_taken_apart_is_whole_in_each_part(kinds: list[str], keep: int) -> None:
    """Nothing is lost, no pair is split, no call is parted from its reasoning; ids may come again."""
    items = made(kinds)
    parts = take_apart(items, keep, size)
    assert [*parts.opening, *parts.past, *parts.newest] == items
    assert parts.opening[:1] == [RULES]
    assert is_whole(parts.past)
    assert is_whole(parts.newest)
    assert sum(map(size, parts.newest)) <= keep
    assert not parts.past or not isinstance(parts.past[-1], Reasoning)


def test_the_users_words_are_kept_the_newest_first() -> None:
    past = [
        user_message("one " * 50),
        user_message("[tightloop, not the user] x"),
        user_message("two"),
    ]
    assert users_words(past, 20, size) == [past[2]]
    assert users_words(past, 500, size) == [past[0], past[2]]


def test_a_hand_over_without_a_model_names_calls_and_outputs() -> None:
    text = without_model(made(["user", "call", "custom"]))
    assert "you called t: {}" in text
    assert "it gave: y" in text


@pytest.mark.parametrize(
    ("message", "window"),
    [
        ("the conversation has 9 tokens and the model's context window is 4096", 4096),
        ("5000 tokens do not fit in the context window of 4096", 4096),
        ("This model's maximum context length is 128,000 tokens. However", 128000),
        ("too long", 700),
    ],
)
def test_a_window_is_learnt(message: str, window: int) -> None:
    found = Window()
    found.learn(message, 700)
    assert found.num_tokens == window
