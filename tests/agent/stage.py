"""The agent against the real server code, in one process, with a scripted engine."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tightloop.agent.events import Event
from tightloop.agent.loop import Agent
from tightloop.agent.patch.apply import StreamEvent
from tightloop.agent.tools.apply_patch import ApplyPatch
from tightloop.agent.tools.exec_command import ExecCommand
from tightloop.agent.tools.interface import Tool, ToolContext
from tightloop.agent.turn import Limits
from tightloop.agent.workbench import Workbench
from tightloop.client.in_memory import InMemoryTransport
from tightloop.client.session import Session
from tightloop.engine.scripted import Answer, Script, ScriptedEngine, in_turn
from tightloop.protocol.items import CustomToolCallOutput, FunctionCallOutput, Item
from tightloop.sandbox.interface import Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.server.endpoint import Endpoint


@dataclass
class Stage:
    """An agent ready to run, and what can be looked at afterwards."""

    agent: Agent
    session: Session
    engine: ScriptedEngine
    workspace: Path
    heard: list[Event] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self, event: Event) -> None:
        self.heard.append(event)
        self.news.set()

    async def until_heard(self, wanted: Callable[[Event], bool]) -> None:
        """Return once an event that is ``wanted`` was said."""
        while not any(wanted(event) for event in self.heard):
            self.news.clear()
            await self.news.wait()

    def outputs(self) -> list[str]:
        """The texts of all tool outputs in the conversation."""
        return output_texts(self.session.items)


def output_texts(items: Sequence[Item]) -> list[str]:
    return [
        item.output for item in items if isinstance(item, FunctionCallOutput | CustomToolCallOutput)
    ]


class Plain(InMemoryTransport):
    """To a server that offers no extension, as far as a client can see."""

    @property
    def capabilities(self) -> frozenset[str]:
        return frozenset()


@asynccontextmanager
async def stage(
    workspace: Path,
    script: Script | Sequence[Answer],
    *,
    tools: Sequence[Tool] = (),
    limits: Limits | None = None,
    kind: str | None = "none",
    transport: type[InMemoryTransport] = InMemoryTransport,
    on_patch: Callable[[StreamEvent], None] | None = None,
    bench: Workbench | None = None,
) -> AsyncIterator[Stage]:
    """Everything started; everything closed afterwards. With a ``bench``, commands run there."""
    engine = ScriptedEngine(script if callable(script) else in_turn(script))
    endpoint = Endpoint(engine)
    await endpoint.start()
    sandbox = await open_sandbox(Policy(workspace, warm_tests=False), kind=kind)
    used: list[Tool] = [ExecCommand(), ApplyPatch(), *tools]
    session = Session(
        transport(endpoint), model="scripted", tools=[tool.definition() for tool in used]
    )
    listeners: list[Stage] = []
    context = ToolContext(workspace, sandbox)
    if on_patch is not None:
        context = replace(context, on_patch=on_patch)
    if bench is not None:
        context = replace(context, sandbox=bench, on_patch=bench.follow, on_changed=bench.changed)
    agent = Agent(
        session,
        used,
        context,
        limits=limits,
        listener=lambda event: listeners[0].listen(event),
        overseer=bench,
    )
    listeners.append(Stage(agent, session, engine, workspace))
    try:
        yield listeners[0]
    finally:
        await session.close()
        await sandbox.close()
        await endpoint.close()
