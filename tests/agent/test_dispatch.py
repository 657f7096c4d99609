"""Outputs are told while their calls run, to whoever wants to know."""

import asyncio
from pathlib import Path
from typing import Any

from tightloop.agent.dispatch import Dispatcher
from tightloop.agent.events import (
    CommandExecution,
    ErrorItem,
    Event,
    FileChange,
    ItemCompleted,
    ThreadItem,
)
from tightloop.agent.tools.apply_patch import ApplyPatch
from tightloop.agent.tools.exec_command import ExecCommand
from tightloop.agent.tools.interface import Hopeless, Tool, ToolContext, ToolResult
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
)
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


class Telling:
    """Fails, and shows why with what a file holds."""

    name = "telling"
    is_ordered = False

    def definition(self) -> dict[str, Any]:
        return {"type": "function", "name": self.name}

    def announce(self, arguments: str, item_id: str) -> ThreadItem | None:
        return None

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        item = FileChange(context.item_id, (), "failed", arguments)
        return ToolResult(arguments, False, (), item)


async def test_no_secret_is_passed_on() -> None:
    """Not to the model, to whoever is told early, or to whoever shows events."""
    heard: list[Event] = []
    context = ToolContext(Path("/ws"), NoSandbox(), redact=lambda text: text.replace("key", "***"))
    dispatcher = Dispatcher([Telling()], context, heard.append, lambda: "item")
    async with asyncio.TaskGroup() as group:
        dispatcher.start(FunctionCall("call", "telling", "the key is in it"), 0, group)
    assert dispatcher.outputs == {"call": FunctionCallOutput("call", "the *** is in it")}
    assert heard == [ItemCompleted(FileChange("item", (), "failed", "the *** is in it"))]


async def test_nobody_needs_to_know() -> None:
    assert await run_two(None) == await run_two(Told())


class Doomed:
    """A streaming tool whose calls are hopeless from the moment an ``x`` comes."""

    name = "doomed"
    is_ordered = True

    def definition(self) -> dict[str, Any]:
        return {"type": "function", "name": self.name}

    def announce(self, arguments: str, item_id: str) -> ThreadItem | None:
        return None

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        raise AssertionError("a prepared call is run as such")

    def prepare(self, context: ToolContext, *, is_custom: bool) -> "DoomedCall":
        return DoomedCall()


class DoomedCall:
    """Hopeless once an ``x`` has come."""

    def __init__(self) -> None:
        self.text = ""

    def feed(self, delta: str) -> None:
        self.text += delta

    def hopeless(self) -> Hopeless | None:
        if "x" not in self.text:
            return None
        return Hopeless(self.text, ToolResult("it cannot be", is_ok=False), 250.0)

    async def run(self, arguments: str) -> ToolResult:
        return ToolResult(f"ran {arguments}", is_ok=True)

    def close(self) -> None:
        """Nothing to let go of."""


def _announced(dispatcher: Dispatcher, index: int, **fields: str) -> None:
    item = {"type": "function_call", "name": "doomed", "call_id": "call_d", **fields}
    dispatcher.announce({"output_index": index, "item": item})


def _doomed(*more: Tool) -> tuple[Dispatcher, list[Event]]:
    heard: list[Event] = []
    context = ToolContext(Path("/ws"), NoSandbox())
    return Dispatcher([Doomed(), *more], context, heard.append, lambda: "item"), heard


def test_a_hopeless_call_is_reported_once_and_answered_when_it_was_cut() -> None:
    dispatcher, heard = _doomed()
    _announced(dispatcher, 0)
    assert dispatcher.feed({"output_index": 0, "delta": "a"}) is None
    hopeless = dispatcher.feed({"output_index": 0, "delta": "x"})
    assert hopeless is not None
    assert (hopeless.arguments, hopeless.num_more_tokens) == ("ax", 250.0)
    assert dispatcher.feed({"output_index": 0, "delta": "x"}) is None
    dispatcher.abandon()
    assert dispatcher.cut == [FunctionCall("call_d", "doomed", "ax")]
    outputs = dispatcher.take_outputs(dispatcher.cut)
    assert outputs == [FunctionCallOutput("call_d", "it cannot be")]
    assert heard == [ItemCompleted(ErrorItem("item", "it cannot be"))]
    dispatcher.begin()
    assert (dispatcher.cut, dispatcher.outputs) == ([], {})


def test_a_free_form_call_is_cut_as_such() -> None:
    dispatcher, _ = _doomed()
    _announced(dispatcher, 3, type="custom_tool_call")
    dispatcher.feed({"output_index": 3, "delta": "x"})
    dispatcher.abandon()
    assert dispatcher.cut == [CustomToolCall("call_d", "doomed", "x")]
    assert dispatcher.take_outputs(dispatcher.cut) == [
        CustomToolCallOutput("call_d", "it cannot be")
    ]


async def test_a_hopeless_call_that_is_completed_is_run_like_any_other() -> None:
    dispatcher, _ = _doomed()
    _announced(dispatcher, 0)
    dispatcher.feed({"output_index": 0, "delta": "x"})
    async with asyncio.TaskGroup() as group:
        dispatcher.start(FunctionCall("call_d", "doomed", "x"), 0, group)
    dispatcher.abandon()
    assert dispatcher.cut == []
    assert dispatcher.outputs["call_d"] == FunctionCallOutput("call_d", "ran x")


async def test_while_another_call_runs_nothing_is_hopeless() -> None:
    """It may be making what is missing; asked again with the next piece after its end."""
    slow = Slow()
    dispatcher, heard = _doomed(slow)
    async with asyncio.TaskGroup() as group:
        dispatcher.start(FunctionCall("call_one", "slow", "one"), 0, group)
        _announced(dispatcher, 1)
        assert dispatcher.feed({"output_index": 1, "delta": "x"}) is None
        slow.gates["one"].set()
    await asyncio.sleep(0)
    assert len(heard) == 1
    assert dispatcher.feed({"output_index": 1, "delta": "y"}) is not None


def test_a_call_without_an_id_cannot_be_answered_early() -> None:
    dispatcher, _ = _doomed()
    _announced(dispatcher, 0, call_id="")
    assert dispatcher.feed({"output_index": 0, "delta": "x"}) is None
    dispatcher.abandon()
    assert dispatcher.cut == []


class Guarded:
    """A gate that lets a call through, or not, after a question or without one."""

    def __init__(self, refusal: str | None, asked_s: float) -> None:
        self.waited_s = 0.0
        self.finished_calls = 0
        self._refusal = refusal
        self._asked_s = asked_s

    def is_open_for(self, tool: Tool) -> bool:
        return False

    async def admit(self, tool: Tool, arguments: str, context: ToolContext) -> str | None:
        self.waited_s += self._asked_s
        return self._refusal

    def finished(
        self, tool: Tool, arguments: str, result: ToolResult, context: ToolContext
    ) -> None:
        self.finished_calls += 1


async def test_a_declined_call_is_not_run_and_has_an_output() -> None:
    """The patch tool shows nothing before its end; the others show what they announced."""
    heard: list[Event] = []
    gate = Guarded("declined: no", 1.0)
    context = ToolContext(Path("/ws"), NoSandbox(), gate=gate)
    tools: list[Tool] = [ExecCommand(), ApplyPatch(), Telling()]
    dispatcher = Dispatcher(tools, context, heard.append, lambda: "item")
    async with asyncio.TaskGroup() as group:
        dispatcher.start(FunctionCall("a", "exec_command", '{"cmd": "ls"}'), 0, group)
        dispatcher.start(CustomToolCall("b", "apply_patch", "*** Begin Patch"), 1, group)
        dispatcher.start(FunctionCall("c", "telling", "x"), 2, group)
    assert [output.output for output in dispatcher.outputs.values()] == [
        f"{name}: declined: no" for name in ("exec_command", "apply_patch", "telling")
    ]
    completed = [event.item for event in heard if isinstance(event, ItemCompleted)]
    assert completed == [
        CommandExecution("item", "ls", "declined: no", None, "declined"),
        FileChange("item", (), "failed", "declined: no"),
        ErrorItem("item", "telling: declined: no"),
    ]
    assert [span.kind for span in dispatcher.spans] == ["waiting"] * 3
    assert gate.finished_calls == 0


async def test_an_admitted_call_runs_and_is_told() -> None:
    gate = Guarded(None, 0.0)
    context = ToolContext(Path("/ws"), NoSandbox(), gate=gate)
    dispatcher = Dispatcher([Telling()], context, lambda _: None, lambda: "item")
    async with asyncio.TaskGroup() as group:
        dispatcher.start(FunctionCall("c", "telling", "x"), 0, group)
    assert (dispatcher.spans, gate.finished_calls) == ([], 1)
    assert dispatcher.outputs["c"] == FunctionCallOutput("c", "x")
