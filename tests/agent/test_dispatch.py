"""Outputs are told while their calls run, to whoever wants to know."""

import asyncio
from pathlib import Path
from typing import Any

from tightloop.agent.dispatch import Dispatcher
from tightloop.agent.events import ThreadItem
from tightloop.agent.tools.interface import ToolContext, ToolResult
from tightloop.protocol.items import FunctionCall, FunctionCallOutput
from tightloop.sandbox.interface import Command, CommandResult


class NoSandbox:
    """Nothing is run in it."""

    kind = "none"

    async def start(self) -> None:
        """Nothing to start."""

    async def run(self, command: Command, on_output: Any = None) -> CommandResult:
        raise AssertionError(f"{command} was run")

    async def close(self) -> None:
        """Nothing to end."""


class Slow:
    """Says its arguments piece by piece, then waits to be released."""

    name = "slow"
    is_ordered = False

    def __init__(self) -> None:
        self.gates = {"one": asyncio.Event(), "two": asyncio.Event()}

    def definition(self) -> dict[str, Any]:
        return {"type": "function", "name": self.name}

    def announce(self, arguments: str, item_id: str) -> ThreadItem | None:
        return None

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        context.on_text(arguments, 0)
        await self.gates[arguments].wait()
        return ToolResult(f"{arguments} is over", True)


class Told:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, int | None]] = []
        self.whole: list[tuple[str, str]] = []

    def prefill(self, call_id: str, piece: str, keep: int | None = None) -> None:
        self.heard.append((call_id, piece, keep))

    def prefill_whole(self, call_id: str, output: str) -> None:
        self.whole.append((call_id, output))


async def run_two(told: Told | None) -> dict[str, str]:
    """Two calls side by side, the first to end being the first; their outputs."""
    tool = Slow()
    ended = asyncio.Event()
    context = ToolContext(Path("/ws"), NoSandbox())
    dispatcher = Dispatcher([tool], context, lambda _: ended.set(), lambda: "item", told)
    async with asyncio.TaskGroup() as group:
        for index, name in enumerate(("one", "two")):
            dispatcher.start(FunctionCall(f"call_{name}", "slow", name), index, group)
        tool.gates["one"].set()
        await ended.wait()  # said after the output was filed
        tool.gates["two"].set()
    outputs = dispatcher.outputs.values()
    return {o.call_id: o.output for o in outputs if isinstance(o, FunctionCallOutput)}


async def test_pieces_are_told_with_their_call_and_whole_outputs_while_others_run() -> None:
    """The last one to end needs no word: its output goes out at once."""
    told = Told()
    outputs = await run_two(told)
    assert outputs == {"call_one": "one is over", "call_two": "two is over"}
    assert told.heard == [("call_one", "one", 0), ("call_two", "two", 0)]
    assert told.whole == [("call_one", "one is over")]


async def test_nobody_needs_to_know() -> None:
    assert await run_two(None) == await run_two(Told())
