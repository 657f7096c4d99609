"""Rounds with hosts that word calls badly, tell of them late, or say nothing at all."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.cutting import Waits, is_whole
from tests.agent.tools.test_exec_command import Recorded
from tightloop.agent.events import Event, Retrying
from tightloop.agent.loop import Agent
from tightloop.agent.tools.exec_command import ExecCommand
from tightloop.agent.tools.interface import ToolContext
from tightloop.agent.turn import Limits, Status
from tightloop.client.scripted import ScriptedTransport
from tightloop.client.session import Session

CALL = {"type": "function_call", "id": "fc", "name": "exec_command", "arguments": '{"cmd":"make"}'}
SAID = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ok"}]}


class Host(ScriptedTransport):
    """Answers with items as they are written down; None is silence."""

    def __init__(self, *answers: list[dict[str, Any]] | None, is_late: bool = False) -> None:
        super().__init__([])
        self.answers = list(answers)
        self.is_late = is_late

    async def stream(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        self.requests.append(request)
        items = self.answers.pop(0)
        if items is None:
            await asyncio.Event().wait()
        items = items or []
        for place, item in enumerate([] if self.is_late else items):
            fields = {"output_index": place, "item": dict(item)}
            yield {"type": "response.output_item.added", **fields}
            yield {"type": "response.output_item.done", **fields}
        output = [dict(item) for item in items] if self.is_late else []
        yield {"type": "response.completed", "response": {"id": "r", "output": output}}


async def turn(host: Host, stall_s: float = 300.0) -> tuple[Agent, Recorded, list[Event]]:
    sandbox, heard, tool = Recorded(), list[Event](), ExecCommand()
    agent = Agent(
        Session(host, model="m", tools=[tool.definition()]),
        [tool],
        ToolContext(Path("/ws"), sandbox),
        limits=Limits(patience=Waits().patience(), stall_s=stall_s),
        listener=heard.append,
    )
    result = await agent.run_turn("go")
    assert (result.status, result.text) == (Status.COMPLETED, "ok")
    assert is_whole(agent.items)
    return agent, sandbox, heard


@pytest.mark.parametrize("is_late", [False, True])
async def test_calls_without_ids_and_with_one_id_are_made_once_each(is_late: bool) -> None:
    """Also where a host tells of its items only with the terminal event."""
    host = Host(
        [CALL, CALL, {**CALL, "call_id": "a"}, {**CALL, "call_id": "a"}], [SAID], is_late=is_late
    )
    _, sandbox, _ = await turn(host)
    assert len(sandbox.commands) == 4
    outputs = [i["call_id"] for i in host.requests[1]["input"] if i["type"].endswith("output")]
    assert outputs == ["call_fc", "call_fc~1", "a", "a~2"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"arguments": '{"cmd":'}, "not JSON"),
        ({"arguments": {"cmd": "make"}}, "Process exited"),
        ({"arguments": [1]}, "must be a JSON object"),
        ({"name": None}, "there is no tool ''"),
        ({"name": "frobnicate"}, "there is no tool 'frobnicate'"),
    ],
)
async def test_a_malformed_call_is_answered(fields: dict[str, Any], words: str) -> None:
    host = Host([{**CALL, "call_id": "a", **fields}], [SAID])
    await turn(host)
    assert words in host.requests[1]["input"][-1]["output"]


async def test_a_silent_response_is_given_up_by_name() -> None:
    _, _, heard = await turn(Host(None, [SAID]), stall_s=0.01)
    (retry,) = [event for event in heard if isinstance(event, Retrying)]
    assert retry.reason == "no event for 0.01 s (the deadline of a silent response)"
