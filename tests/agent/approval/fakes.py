"""Somebody to ask, and tools that note what they did."""

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tightloop.agent.approval.interface import ApprovalRequest, Decision
from tightloop.agent.events import ThreadItem
from tightloop.agent.tools.interface import ToolContext, ToolResult
from tightloop.sandbox.interface import Command, CommandResult


@dataclass
class Answering:
    """Presses the keys that it was given, one for each question; ``word`` goes with denials."""

    keys: str
    word: str = ""
    asked: list[ApprovalRequest] = field(default_factory=list)

    async def ask(self, request: ApprovalRequest) -> Decision:
        self.asked.append(request)
        key = self.keys[len(self.asked) - 1]
        decision = next(one.decision for one in request.choices if one.key == key)
        return replace(decision, word=self.word)


@dataclass
class Waiting:
    """Never answers. ``is_open`` is set while a question is."""

    opened: asyncio.Event = field(default_factory=asyncio.Event)
    is_open: bool = False

    async def ask(self, request: ApprovalRequest) -> Decision:
        self.is_open = True
        self.opened.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.is_open = False
        raise AssertionError("nobody answers")


class Commands:
    """A sandbox that notes what it is to run."""

    kind = "none"

    def __init__(self) -> None:
        self.run_lines: list[str] = []

    async def start(self) -> None:
        """Nothing to start."""

    async def run(self, command: Command, on_output: Any = None) -> CommandResult:
        self.run_lines.append(command.script or " ".join(command.argv or ()))
        return CommandResult(0, "", 0, 0)

    async def close(self) -> None:
        """Nothing to end."""


class Outside:
    """A tool that acts outside the sandbox."""

    name = "mail_send"
    is_ordered = False
    leaves_sandbox = True

    def definition(self) -> dict[str, Any]:
        return {"type": "function", "name": self.name}

    def describe(self, arguments: str) -> str:
        return f"mail send {arguments}"

    def announce(self, arguments: str, item_id: str) -> ThreadItem | None:
        return None

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        return ToolResult("sent", True)


def context(place: Path = Path("/ws")) -> ToolContext:
    return ToolContext(place, Commands(), item_id="item_1")
