"""Summaries: asked for, made inside a response, and never in a loop."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.test_resume import serving
from tests.server.wire import Wire
from tightloop.engine.interface import GenerationRequest, ModelInfo
from tightloop.engine.scripted import Answer, Hold, ScriptedEngine, text_answer
from tightloop.protocol.compaction import SUMMARY_HEAD
from tightloop.protocol.deltas import Finished, FinishReason, Usage
from tightloop.protocol.items import Message, decode_input, user_message
from tightloop.server.compacting import SUMMARY_PROMPT, Compactor, worth_keeping
from tightloop.server.endpoint import Endpoint
from tightloop.server.fitting import CUT_MARK
from tightloop.server.store import Store

LONG = "x" * 4000
"""About a thousand tokens by the scripted engine's estimate."""

CUT: dict[str, Any] = {"context_management": [{"type": "compaction", "compact_threshold": 900}]}


class Summing:
    """Sums up when asked, else says how many items it was shown and the first text of them."""

    def __init__(self) -> None:
        self.contexts: list[list[str]] = []
        self.summaries: list[GenerationRequest] = []

    def __call__(self, request: GenerationRequest) -> Answer:
        texts = [item.text for item in request.context() if isinstance(item, Message)]
        if texts[-1] == SUMMARY_PROMPT:
            self.summaries.append(request)
            return [*text_answer("the gist"), Finished(FinishReason.STOP, Usage(100, 50, 2))]
        self.contexts.append(texts)
        return [*text_answer("ok"), Finished(FinishReason.STOP, Usage(10, 0, 1))]


@pytest.fixture
def summing() -> Summing:
    return Summing()


@pytest.fixture
async def wire(summing: Summing) -> AsyncIterator[Wire]:
    endpoint = Endpoint(ScriptedEngine(summing))
    await endpoint.start()
    yield Wire(endpoint)
    await endpoint.close()


async def test_a_trigger_gives_exactly_one_compaction_item(wire: Wire, summing: Summing) -> None:
    """As Codex asks for it: last in the input, then a new chain with the item."""
    wire.create(store=False, input=[*said(LONG), {"type": "compaction_trigger"}])
    end = await wire.end()
    (item,) = end["response"]["output"]
    assert item["type"] == "compaction"
    assert end["response"]["usage"]["total_tokens"] == 102
    wire.create(store=False, input=[*said("fix it"), item, *said("go on")])
    await wire.end(2)
    assert summing.contexts == [["fix it", SUMMARY_HEAD + "the gist", "go on"]]


async def test_continuing_from_a_trigger_leaves_the_past_behind(
    wire: Wire, summing: Summing
) -> None:
    """Ground rules and the user's messages stay; answers do not."""
    wire.create(store=False, input=[said("be brief", "developer")[0], *said("fix it")])
    first = (await wire.end())["response"]["id"]
    trigger = [{"type": "compaction_trigger"}]
    wire.create(store=False, previous_response_id=first, input=trigger)
    second = (await wire.end(2))["response"]["id"]
    wire.create("go on", store=False, previous_response_id=second)
    await wire.end(3)
    gist = SUMMARY_HEAD + "the gist"
    assert summing.contexts[-1] == ["be brief", "fix it", gist, "go on"]


def said(text: str, role: str = "user") -> list[dict[str, Any]]:
    return [{"type": "message", "role": role, "content": text}]


async def test_above_its_threshold_a_response_begins_with_a_compaction(
    wire: Wire, summing: Summing
) -> None:
    """The answer reads the summary in place of the past; its figures count both."""
    wire.create(LONG, store=False)
    first = (await wire.end())["response"]["id"]
    wire.create("and now", store=False, previous_response_id=first, **CUT)
    end = await wire.end(2)
    kinds = [item["type"] for item in end["response"]["output"]]
    assert kinds == ["compaction", "message"]
    cut = "x" * 443 + CUT_MARK + "x" * 443
    assert summing.contexts[-1] == [cut, "and now", SUMMARY_HEAD + "the gist"]
    usage = end["response"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (110, 3)
    assert usage["input_tokens_details"]["cached_tokens"] == 50
    wire.create("more", store=False, previous_response_id=end["response"]["id"], **CUT)
    await wire.end(3)
    expected = [cut, "and now", SUMMARY_HEAD + "the gist", "ok", "more"]
    assert expected == summing.contexts[-1]
    assert len(summing.summaries) == 1


async def test_below_its_threshold_nothing_happens(wire: Wire, summing: Summing) -> None:
    wire.create("short", store=False, **CUT)
    end = await wire.end()
    assert [item["type"] for item in end["response"]["output"]] == ["message"]
    assert not summing.summaries


async def test_two_compactions_never_follow_each_other(wire: Wire, summing: Summing) -> None:
    """Also when rules that cannot be left out are above the threshold by themselves."""
    wire.create(store=False, input=[*said(LONG, "developer"), *said("a")], **CUT)
    end = await wire.end()
    for number in range(2, 6):
        parent = end["response"]["id"]
        wire.create("b", store=False, previous_response_id=parent, **CUT)
        end = await wire.end(number)
        assert end["type"] == "response.completed"
    assert len(summing.summaries) == 3


async def test_the_summary_is_asked_for_with_the_same_prefix(wire: Wire, summing: Summing) -> None:
    """The engine has it warm: same parent, instructions and tools, one more message."""
    tools = [{"type": "function", "name": "shell", "parameters": {"type": "object"}}]
    wire.create(LONG, store=False, tools=tools, instructions="rules", **CUT)
    await wire.end()
    (asked,) = summing.summaries
    assert asked.instructions == "rules"
    assert [tool.name for tool in asked.tools] == ["shell"]  # type: ignore[union-attr]
    assert asked.tool_choice == "none"


async def test_a_summary_that_fails_fails_the_response() -> None:
    """Going on without it would end in a context that is too long, and nobody would know why."""
    failed = Finished(FinishReason.ERROR, Usage(), None, "upstream_error", "no host")
    wire = Wire(Endpoint(ScriptedEngine(lambda _: [failed])))
    wire.create(LONG, store=False, **CUT)
    end = await wire.end()
    assert end["response"]["error"] == {"code": "upstream_error", "message": "no host"}
    empty = Wire(Endpoint(ScriptedEngine(lambda _: [])))
    empty.create(store=False, input=[*said("a"), {"type": "compaction_trigger"}])
    assert (await empty.end())["response"]["error"]["code"] == "compaction_failed"


async def test_a_summary_is_cancelled_like_any_answer() -> None:
    hold = Hold()
    endpoint = Endpoint(ScriptedEngine(lambda _: [hold]))
    wire = Wire(endpoint)
    wire.create(LONG, store=False, **CUT)
    await hold.reached.wait()
    wire.send({"type": "response.cancel"})
    assert (await wire.end())["type"] == "response.incomplete"
    await endpoint.close()


class Small(ScriptedEngine):
    """Counts characters, and has a window of 600 of them."""

    def models(self) -> list[ModelInfo]:
        return [ModelInfo("scripted", "small", 600)]

    async def count_input(self, request: GenerationRequest) -> int:
        return sum(len(i.text) for i in request.context() if isinstance(i, Message))


def wordy(request: GenerationRequest) -> Answer:
    texts = [item.text for item in request.context() if isinstance(item, Message)]
    assert sum(map(len, texts)) <= 600, "the engine was given more than it can hold"
    return text_answer("many words " * 30 if texts[-1] == SUMMARY_PROMPT else "ok")


async def test_a_chain_in_a_small_window_goes_on_for_ever() -> None:
    """Each summary leaves room for the next turn, however long the model makes it."""
    endpoint = Endpoint(Small(wordy))
    wire = Wire(endpoint)
    parent: str | None = None
    management = [{"type": "compaction", "compact_threshold": 150}]
    for number in range(1, 15):
        fields: dict[str, Any] = {"previous_response_id": parent} if parent else {}
        text = f"message number {number} with a few words"
        wire.create(text, store=False, context_management=management, **fields)
        end = await wire.end(number)
        assert end["type"] == "response.completed", end["response"]["error"]
        parent = end["response"]["id"]
    await endpoint.close()


async def test_rules_that_leave_no_room_are_named_before_anything_is_promised() -> None:
    """No compaction item is sent for a conversation that cannot go on."""
    endpoint = Endpoint(Small(lambda _: text_answer("gist")))
    wire = Wire(endpoint)
    management = [{"type": "compaction", "compact_threshold": 100}]
    rules = said("r" * 500, "developer")
    wire.create(store=False, input=[*rules, *said("a")], context_management=management)
    end = await wire.end()
    assert end["response"]["error"]["code"] == "context_length_exceeded"
    assert end["response"]["output"] == []
    await endpoint.close()


async def test_a_message_that_does_not_fit_is_summed_up_by_its_ends() -> None:
    """Not dropped: the summary would be one of nothing."""
    engine = Small(wordy)
    compactor = Compactor(engine, lambda _: None)
    text = "the key is 42 " + "x" * 2000 + " and that is all"
    request = GenerationRequest("r", "scripted", None, (user_message(text),))
    summary = await compactor.summarized(request)
    assert summary.is_usable
    read = engine.requests[0].context()[0]
    assert isinstance(read, Message)
    assert read.text.startswith("the key is 42")
    assert read.text.endswith("and that is all")
    await engine.close()


async def test_a_foreign_compaction_item_is_refused(wire: Wire) -> None:
    item = {"type": "compaction", "encrypted_content": "gAAAAAB"}
    wire.create(store=False, input=[item])
    end = await wire.end()
    assert end["error"]["param"] == "input[0].encrypted_content"


async def test_a_compacted_chain_survives_a_restart(tmp_path: Path) -> None:
    for text, expected in (("and now", 3), ("later", 5)):
        summing = Summing()
        async with serving(summing, store=Store(tmp_path / "db")) as c:
            if expected == 3:
                last = await c.create(input=LONG)
            last = await c.create(input=text, previous_response_id=last["id"], **CUT)
        assert len(summing.contexts[-1]) == expected


async def test_compacting_by_endpoint(summing: Summing) -> None:
    """The output is the input of a new chain; user messages are complete items."""
    async with serving(summing) as c:
        made = await c.create(input="fix it", instructions="rules")
        body = {"model": "scripted", "previous_response_id": made["id"], "input": "why?"}
        compacted = await c.call("POST", "/v1/responses/compact", json=body)
        assert compacted["object"] == "response.compaction"
        *messages, item = compacted["output"]
        assert [message["content"][0]["text"] for message in messages] == ["fix it", "why?"]
        assert all(message["id"] and message["status"] == "completed" for message in messages)
        assert item["type"] == "compaction"
        assert compacted["usage"]["input_tokens"] == 100
        await c.create(input=[*compacted["output"], *said("go on")])
        expected = ["fix it", "why?", SUMMARY_HEAD + "the gist", "go on"]
        assert summing.contexts[-1] == expected
        refused = await c.call("POST", "/v1/responses/compact", status=400, json={"input": "a"})
        assert refused["error"]["param"] == "model"


async def test_counting_input_tokens(summing: Summing) -> None:
    """With the parent's context, without generating anything."""
    async with serving(summing) as c:
        made = await c.create(input=LONG)
        asked = len(summing.contexts)
        body: dict[str, Any] = {"model": "scripted", "input": "more"}
        short = await c.call("POST", "/v1/responses/input_tokens", json=body)
        body["previous_response_id"] = made["id"]
        long = await c.call("POST", "/v1/responses/input_tokens", json=body)
        assert short["object"] == "response.input_tokens"
        assert long["input_tokens"] - short["input_tokens"] > 1000
        assert len(summing.contexts) == asked
        body["previous_response_id"] = "resp_none"
        refused = await c.call("POST", "/v1/responses/input_tokens", status=400, json=body)
        assert refused["error"]["code"] == "previous_response_not_found"


def test_of_many_messages_the_newest_are_kept() -> None:
    messages = [Message("user", ()), *(text_message(str(n) * 40) for n in range(5))]
    kept = worth_keeping([*messages, text_message("rules", "system")], 100)
    assert [item.text[:1] for item in kept if isinstance(item, Message)] == ["3", "4", "r"]


def text_message(text: str, role: str = "user") -> Message:
    (item,) = said(text, role)
    (message,) = decode_input([item])
    assert isinstance(message, Message)
    return message
