"""77x: what agents from their registries send again is found, so that an engine reads only what is new.

The server is in this process: what its engine was asked is looked at, not only the wire.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.e2e import test_claude_code, test_opencode
from tests.e2e.codex import Codex
from tests.e2e.relay import Relay
from tests.e2e.stock_clients import Home, installed, run
from tests.e2e.test_mini_swe_agent import SUBMIT
from tightloop.engine.interface import GenerationRequest
from tightloop.engine.scripted import Answer, ScriptedEngine, Step, call_answer, text_answer
from tightloop.governance.keys import KeyRing
from tightloop.protocol.deltas import ReasoningDelta
from tightloop.protocol.items import CustomToolCallOutput, FunctionCallOutput
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint

pytestmark = pytest.mark.timeout(120)

OUTPUTS = (FunctionCallOutput, CustomToolCallOutput)


class Model:
    """Answers by the number of tool outputs it is shown; without tools, with a title."""

    def __init__(self, answers: list[list[dict[str, Any]]], *, thinks: bool = False) -> None:
        self.turns: list[GenerationRequest] = []
        self._answers = answers
        self._thinks = thinks
        self._number = 0

    def __call__(self, request: GenerationRequest) -> Answer:
        if not request.tools:
            return text_answer("A title")
        self.turns.append(request)
        done = sum(isinstance(item, OUTPUTS) for item in request.context())
        steps: list[Step] = [ReasoningDelta("I think.")] if self._thinks else []
        for said in self._answers[min(done, len(self._answers) - 1)]:
            if "text" in said:
                steps += text_answer(said["text"])
                continue
            self._number += 1
            steps += call_answer(
                said["call"]["name"], said["call"]["arguments"], f"call_{self._number}"
            )
        return steps

    def check(self, num_turns: int) -> None:
        """Each turn but the first was below the one before it; what was new begins with an output."""
        first, *others = self.turns
        assert len(self.turns) == num_turns
        assert first.parent is None
        for before, turn in zip(self.turns, others, strict=False):
            assert turn.parent is not None
            assert turn.parent.id == before.response_id
            assert isinstance(turn.items[0], OUTPUTS)


@asynccontextmanager
async def serving(model: Model) -> AsyncIterator[Relay]:
    engine = ScriptedEngine(model)
    access = Access(KeyRing(), "127.0.0.1")
    server = Server(Endpoint(engine), access, host="127.0.0.1", port=0)
    await server.start()
    try:
        async with Relay(server.url) as relay:
            yield relay
    finally:
        await server.stop(grace_s=0)


@pytest.mark.parametrize("thinks", [False, True])
async def test_771_claude_code(home: Home, thinks: bool) -> None:
    """Its mark of the cache moves with each request; calls come back as objects."""
    model = Model(test_claude_code.answers(home), thinks=thinks)
    async with serving(model) as relay:
        env = test_claude_code.environment(home, relay.origin)
        program = installed("npm", "node_modules", ".bin", "claude")
        options = ["--output-format", "stream-json", "--verbose", "--dangerously-skip-permissions"]
        (await run([program, "-p", "write it", *options], home, env)).well()
    model.check(3)


@pytest.mark.parametrize("thinks", [False, True])
@pytest.mark.parametrize("package", ["@ai-sdk/openai-compatible", "@ai-sdk/openai"])
async def test_772_opencode(home: Home, package: str, thinks: bool) -> None:
    """Over Chat Completions, and over Responses without ids."""
    model = Model(test_opencode.answers(home), thinks=thinks)
    async with serving(model) as relay:
        (await test_opencode.opencode(home, relay, package)).well()
    model.check(3)


@pytest.mark.parametrize("thinks", [False, True])
async def test_773_codex_over_http(home: Home, thinks: bool) -> None:
    """With the ids of the server, and its reasoning."""
    call = {"name": "exec_command", "arguments": {"cmd": "echo seen > shell.txt"}}
    more = {"name": "exec_command", "arguments": {"cmd": "echo more > more.txt"}}
    model = Model([[{"call": call}], [{"call": more}], [{"text": "done"}]], thinks=thinks)
    async with serving(model) as relay:
        codex = Codex(home, relay.url, relay.origin, websockets=False)
        (await codex.exec()).well()
    model.check(3)


@pytest.mark.parametrize("thinks", [False, True])
async def test_774_mini_swe_agent(home: Home, thinks: bool) -> None:
    """Chat Completions without a stream."""
    calls = [{"name": "bash", "arguments": {"command": text}} for text in ("ls", "pwd", SUBMIT)]
    model = Model([[{"text": "THOUGHT: go on"}, {"call": call}] for call in calls], thinks=thinks)
    async with serving(model) as relay:
        env = home.environment(
            relay.origin,
            OPENAI_API_KEY="none needed",
            OPENAI_API_BASE=relay.url,
            OPENAI_BASE_URL=relay.url,
            MSWEA_CONFIGURED="true",
            MSWEA_COST_TRACKING="ignore_errors",
            MSWEA_GLOBAL_CONFIG_DIR=str(home.home / "mini"),
            LITELLM_LOCAL_MODEL_COST_MAP="True",
        )
        program = installed("mini-swe-agent", "bin", "mini")
        options = ["-m", "openai/scripted", "-t", "write it", "-y", "--exit-immediately"]
        trajectory = home.tmp / "run.traj.json"
        (await run([program, *options, "-l", "0", "-o", str(trajectory)], home, env)).well()
    model.check(3)
