"""Clients that send everything again: the engine reads what is new, and they notice nothing."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.server import test_chat, test_http, test_messages
from tests.server.wire import Wire
from tightloop.engine.families.chat import ChatFamily
from tightloop.engine.interface import Engine, GenerationRequest
from tightloop.engine.scripted import (
    Answer,
    ScriptedEngine,
    Step,
    call_answer,
    in_turn,
    text_answer,
)
from tightloop.engine.scripted_backend import IM_END, ScriptedBackend
from tightloop.engine.sequence_pool import SequencePool
from tightloop.engine.token_engine import TokenEngine
from tightloop.governance.keys import KeyRing
from tightloop.protocol.deltas import ReasoningDelta, TextDelta
from tightloop.protocol.items import FunctionCall, FunctionCallOutput, Message, Reasoning
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.server.known_histories import KnownHistories
from tightloop.server.store import Store

TOOL = {"type": "function", "name": "shell", "parameters": {"type": "object"}}
CALLS: list[Step] = [
    ReasoningDelta("plan"),
    *text_answer("Look."),
    *call_answer("shell", {"cmd": "ls"}, "call_1"),
]
QUESTION = {"role": "user", "content": "hi"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "a.py"}


class Seen:
    """Answers in turn, and notes what of each request was new to the engine."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[GenerationRequest] = []
        self._script = in_turn(answers)

    def __call__(self, request: GenerationRequest) -> Answer:
        self.requests.append(request)
        return self._script(request)

    @property
    def new(self) -> list[list[type]]:
        """Types of the items that were new, for each request."""
        return [[type(item) for item in request.items] for request in self.requests]


async def test_over_http_with_the_ids_of_the_server() -> None:
    """As Codex does without a socket. A response that was deleted is not found."""
    seen = Seen(CALLS, text_answer("ok"), text_answer("done"))
    async with test_http.client(seen) as c:
        first = await c.create(input=[QUESTION], tools=[TOOL], store=False)
        history = [QUESTION, *first["output"], OUTPUT]
        second = await c.create(input=history, tools=[TOOL])
        assert second["previous_response_id"] is None
        assert await c.call("DELETE", f"/v1/responses/{second['id']}")
        history += [*second["output"], {"role": "user", "content": "more"}]
        await c.create(input=history, tools=[TOOL])
    assert seen.new == [[Message], [FunctionCallOutput], [FunctionCallOutput, Message, Message]]
    parent = seen.requests[1].parent
    assert parent is not None
    assert parent.id == first["id"]
    assert len(seen.requests[2].context()) == len(history)


async def test_what_was_found_may_be_deleted(tmp_path: Path) -> None:
    """A stored request keeps all its input, also on disk, and can be continued."""
    seen = Seen(text_answer("one"), text_answer("two"), text_answer("three"))
    file = tmp_path / "responses.sqlite"
    async with test_http.client(seen, store=Store(file)) as c:
        first = await c.create(input=[QUESTION])
        history = [QUESTION, *first["output"], {"role": "user", "content": "b"}]
        second = await c.create(input=history)
        await c.call("DELETE", f"/v1/responses/{first['id']}")
        listed = await c.call("GET", f"/v1/responses/{second['id']}/input_items?order=asc")
        assert len(listed["data"]) == 3
        await c.create(input="c", previous_response_id=second["id"])
    assert seen.requests[2].parent is not None
    assert len(seen.requests[2].parent.context()) == 4
    again = Seen(text_answer("four"))
    async with test_http.client(again, store=Store(file)) as c:
        await c.create(input="d", previous_response_id=second["id"])
    assert [type(item) for item in again.requests[0].context()] == [Message] * 5


async def test_chat_completions_without_its_reasoning() -> None:
    """The engine is told the turn that the client goes on from, in the client's words."""
    seen = Seen(CALLS, text_answer("ok"), text_answer("done"))
    async with test_chat.client(ScriptedEngine(seen)) as c:
        tools = [{"type": "function", "function": {"name": "shell"}}]
        messages: list[Any] = [QUESTION]
        for said in (
            {"role": "tool", "tool_call_id": "call_1", "content": "a.py"},
            {"role": "user", "content": "more"},
            None,
        ):
            made = (await c.create(messages=messages, tools=tools))["choices"][0]["message"]
            made.pop("reasoning_content", None)
            messages += [made, said]
    assert seen.new == [[Message], [FunctionCallOutput], [Message]]
    kinds = [type(item) for item in seen.requests[2].context()]
    assert kinds == [Message, Message, FunctionCall, FunctionCallOutput, Message, Message]


@pytest.mark.parametrize("thinking", [{"type": "disabled"}, {"type": "adaptive"}])
async def test_messages_with_arguments_in_another_spelling(thinking: dict[str, str]) -> None:
    """The call's input comes back as an object, and a cache mark moves."""
    spaced = call_answer("shell", {"cmd": "ls"}, "call_1")
    plan: list[Step] = [ReasoningDelta("plan")] if thinking["type"] == "adaptive" else []
    seen = Seen([*plan, *text_answer("Look."), *spaced], text_answer("ok"), text_answer("done"))
    async with test_messages.client(ScriptedEngine(seen)) as c:
        messages: list[Any] = [QUESTION]
        result = {"type": "tool_result", "tool_use_id": "call_1", "content": "a.py"}
        for said in (result, {"type": "text", "text": "more"}, {"type": "text", "text": ""}):
            tools = [{"name": "shell", "input_schema": {"type": "object"}}]
            made = await c.post(messages=messages, tools=tools, thinking=thinking)
            for message in messages[1::2]:
                message["content"][0].pop("cache_control", None)
            content = [{**said, "cache_control": {"type": "ephemeral"}}]
            messages += [{"role": "assistant", "content": made["content"]}]
            messages += [{"role": "user", "content": content}]
        counted = await c.post(
            "/v1/messages/count_tokens", messages=messages[:5], tools=tools, thinking=thinking
        )
    assert seen.new == [[Message], [FunctionCallOutput], [Message]]
    assert counted["input_tokens"] > 0


async def test_on_a_new_socket_after_the_old_one_was_lost() -> None:
    """The client has only its history left of what it sent piece by piece."""
    seen = Seen(text_answer("one"), CALLS, text_answer("done"))
    endpoint = Endpoint(ScriptedEngine(seen))
    lost = Wire(endpoint)
    lost.create(store=False, input=[QUESTION])
    first = (await lost.end())["response"]
    follow = {"role": "user", "content": "b"}
    lost.create(store=False, input=[follow], previous_response_id=first["id"])
    second = (await lost.end(2))["response"]
    lost.session.close(is_goodbye=False)
    wire = Wire(endpoint)
    history = [QUESTION, *first["output"], follow, *second["output"], OUTPUT]
    wire.create(store=False, input=history)
    assert (await wire.end())["type"] == "response.completed"
    assert seen.new == [[Message], [Message], [FunctionCallOutput]]
    assert [type(item) for item in seen.requests[2].context()][3] is Reasoning


async def test_items_are_refused_by_their_own_number() -> None:
    """What was looked at before is not looked at again; what is new is, as ever."""
    seen = Seen(text_answer("one"))
    async with test_http.client(seen) as c:
        first = await c.create(input=[QUESTION])
        history = [QUESTION, *first["output"]]
        for wrong, param in (
            (OUTPUT, "input[2].call_id"),
            ({"type": "compaction", "encrypted_content": "x"}, "input[2].encrypted_content"),
            ({"type": "additional_tools", "tools": [5]}, "input[2].tools[0]"),
        ):
            refused = await c.create(status=400, input=[*history, wrong, QUESTION])
            assert refused["error"]["param"] == param


async def test_tools_that_came_as_items_still_count() -> None:
    """Clients that send them once, in front, send them again with the history."""
    seen = Seen(text_answer("one"), text_answer("two"))
    tools = {"type": "additional_tools", "role": "developer", "tools": [TOOL]}
    async with test_http.client(seen) as c:
        first = await c.create(input=[tools, QUESTION])
        history = [tools, QUESTION, *first["output"], {"role": "user", "content": "b"}]
        await c.create(input=history, tool_choice="required")
    assert seen.new[1] == [Message]
    assert seen.requests[0].tools == seen.requests[1].tools


async def test_one_key_does_not_find_what_another_has_said() -> None:
    seen = Seen(text_answer("one"), text_answer("two"), text_answer("three"))
    async with test_http.client(seen, "key-a", "key-b") as c:
        history: list[Any] = [QUESTION]
        for key in ("key-a", "key-b", "key-a"):
            body = {"model": "scripted", "input": history}
            headers = {"Authorization": f"Bearer {key}"}
            made = await c.call("POST", "/v1/responses", json=body, headers=headers)
            if key == "key-a":
                history += [*made["output"], {"role": "user", "content": "b"}]
    assert [request.parent is None for request in seen.requests] == [True, True, False]


class Counting(ScriptedEngine):
    """Counts how often it was asked to count."""

    num_counts = 0

    async def count_input(self, request: GenerationRequest) -> int:
        self.num_counts += 1
        return await super().count_input(request)


@pytest.mark.parametrize(
    "fields",
    [
        {"context_management": [{"type": "compaction", "compact_threshold": 100_000}]},
        {"truncation": "auto"},
    ],
)
@pytest.mark.parametrize("resends", [True, False])
async def test_a_context_far_from_its_limit_is_counted_once(
    fields: dict[str, Any], resends: bool
) -> None:
    """Later turns add what they bring; near the limit, or with other tools, it is counted."""
    engine = Counting(lambda _: [TextDelta("ok")])
    wire = Wire(Endpoint(engine))
    history: list[Any] = [QUESTION]
    parent: dict[str, Any] = {}
    counts = []
    for number in range(1, 6):
        more = {"role": "user", "content": "b" * (1 << 20 if number == 4 else 100)}
        tools = [TOOL] if number == 5 else []
        new = history if resends else [history[-1]]
        wire.create(store=False, input=new, tools=tools, **fields, **parent)
        made = (await wire.end(number))["response"]
        history += [*made["output"], more]
        parent = {} if resends else {"previous_response_id": made["id"]}
        counts.append(engine.num_counts)
    assert counts[:4] == [1, 1, 1, 1]
    assert counts[4] > 1


REPLIES = (
    b"<think>\nhow\n</think>\n\nLook.\n<tool_call>\n"
    b'{"name": "shell", "arguments": {"cmd":  "ls"}}\n</tool_call>',
    b"ok",
    b"done",
)


class Prompts:
    """Replies in turn; ``read`` are the tokens that each reply began after."""

    def __init__(self) -> None:
        self.read: list[list[int]] = []
        self._replies = list(REPLIES)
        self._left: list[int] = []

    def __call__(self, held: Sequence[int]) -> int:
        if not self._left:
            self.read.append(list(held))
            reply = self._replies.pop(0) if self._replies else b"ok"
            self._left = [*reply, IM_END]
        return self._left.pop(0)


def reading(prompts: Prompts) -> TokenEngine:
    numbers = itertools.count(1)
    backend = ScriptedBackend(prompts, context_window=1 << 14, num_cells=1 << 16)

    def family(pool: SequencePool) -> ChatFamily:
        return ChatFamily(pool, new_call_id=lambda: f"call_{next(numbers)}", has_drafts=False)

    return TokenEngine(lambda: backend, family, name="scripted")


async def talk(engine: Engine, dialect: str, *, is_found: bool) -> list[int]:
    """Three turns of one client; how many tokens of each prompt were cached."""
    endpoint = Endpoint(engine)
    if not is_found:
        endpoint.backstage.histories = KnownHistories(max_known=0)
    access = Access(KeyRing(), "127.0.0.1")
    server = Server(endpoint, access, host="127.0.0.1", port=0)
    await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            if dialect == "responses":
                return await in_responses(test_http.Client(server, endpoint, http))
            if dialect == "chat":
                return await in_chat(test_chat.Client(server.url, endpoint, http))
            return await in_messages(test_messages.Client(server, endpoint, http))
    finally:
        await server.stop(grace_s=0)


async def in_responses(c: test_http.Client) -> list[int]:
    history: list[Any] = [QUESTION]
    cached = []
    for said in (OUTPUT, {"role": "user", "content": "more"}, QUESTION):
        made = await c.create(input=history, tools=[TOOL], store=False)
        cached.append(made["usage"]["input_tokens_details"]["cached_tokens"])
        history += [*made["output"], said]
    return cached


async def in_chat(c: test_chat.Client) -> list[int]:
    tools = [{"type": "function", "function": {"name": "shell"}}]
    messages: list[Any] = [QUESTION]
    cached = []
    output = {"role": "tool", "tool_call_id": "call_1", "content": "a.py"}
    for said in (output, {"role": "user", "content": "more"}, QUESTION):
        made = await c.create(messages=messages, tools=tools)
        cached.append(made["usage"]["prompt_tokens_details"]["cached_tokens"])
        message = made["choices"][0]["message"]
        message.pop("reasoning_content", None)
        messages += [message, said]
    return cached


async def in_messages(c: test_messages.Client) -> list[int]:
    tools = [{"name": "shell", "input_schema": {"type": "object"}}]
    messages: list[Any] = [QUESTION]
    cached = []
    output = {"type": "tool_result", "tool_use_id": "call_1", "content": "a.py"}
    for said in (output, {"type": "text", "text": "more"}, {"type": "text", "text": "hi"}):
        made = await c.post(messages=messages, tools=tools, thinking={"type": "adaptive"})
        cached.append(made["usage"]["cache_read_input_tokens"])
        messages += [{"role": "assistant", "content": made["content"]}]
        messages += [{"role": "user", "content": [said]}]
    return cached


@pytest.mark.parametrize("dialect", ["responses", "chat", "messages"])
async def test_a_model_reads_the_same_tokens_as_if_nothing_had_been_found(dialect: str) -> None:
    """And no fewer of them are warm."""
    found, whole = Prompts(), Prompts()
    with_index = await talk(reading(found), dialect, is_found=True)
    without = await talk(reading(whole), dialect, is_found=False)
    assert found.read == whole.read
    assert len(found.read) == 3
    assert with_index == without
    assert with_index[2] > with_index[1] > 0
