"""The gate that every call of the model goes through before it runs.

::

    call -> rules and mode -> hooks -> a question, if one is needed -> the tool

It is free for calls that nobody could stop: in the modes that ask nothing, without rules that stop
and without hooks, ``is_open_for`` is all that is looked at.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tightloop.agent.approval.hooks import HookEvent, Hooks
from tightloop.agent.approval.interface import (
    ApprovalRequest,
    Approver,
    Decision,
    Mode,
    Verdict,
)
from tightloop.agent.approval.judge import Judgement, Line, Outcome, Situation, judge
from tightloop.agent.approval.questions import (
    about_changes,
    about_command,
    about_tool,
    lasting_rules,
)
from tightloop.agent.approval.rules import Rules, ToolRule
from tightloop.agent.tools.apply_patch import ApplyPatch
from tightloop.agent.tools.exec_command import ExecCommand, Requested, requested
from tightloop.agent.tools.interface import OutsideTool, Tool, ToolContext, ToolResult
from tightloop.sandbox.entries import Change
from tightloop.sandbox.interface import Command
from tightloop.sandbox.risks import Risk
from tightloop.trace.clock import Clock, MonotonicClock

NOBODY = "nobody is there to be asked"


class ApprovalError(Exception):
    """The mode cannot be had; the text says what to do."""


class Record(Protocol):
    """Where decisions are written, such as ``RunLog.write``."""

    def __call__(self, kind: str, **fields: Any) -> None:
        """One line."""


def _forget(kind: str, **fields: Any) -> None:
    """Nobody keeps decisions."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A call that is judged. ``line`` is None for tools other than commands."""

    tool: Tool
    title: str
    judgement: Judgement
    line: Line | None = None
    directory: str = "."


@dataclass(slots=True)
class Gate:
    """One conversation's. ``approver`` is None when nobody can be asked: what would be asked is
    declined then. ``on_question`` is told when a question opens (True) and closes (False)."""

    rules: Rules = field(default_factory=Rules)
    situation: Situation = field(default_factory=Situation)
    approver: Approver | None = None
    hooks: Hooks | None = None
    record: Record = _forget
    clock: Clock = field(default_factory=MonotonicClock)
    on_question: Callable[[bool], None] = lambda _is_open: None
    waited_s: float = 0.0
    """How long questions were open, all together."""
    _lines: set[tuple[str, tuple[str, ...], str]] = field(default_factory=set)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    # -- modes

    @property
    def mode(self) -> Mode:
        """The mode that holds for the next call."""
        return self.situation.mode

    def switch(self, mode: Mode) -> None:
        """Another mode holds from the next call on. Raises ApprovalError where it cannot be had."""
        if mode is Mode.FULL and self.situation.is_isolated:
            raise ApprovalError(
                "the mode 'full' has no isolation, and this conversation has one: start it again "
                "with --approval full"
            )
        self.record("approval.mode", mode=mode.value, before=self.mode.value)
        self.situation = replace(self.situation, mode=mode)

    def is_open_for(self, tool: Tool) -> bool:
        """Whether calls of this tool cannot be stopped by anybody, so that none needs to be looked at."""
        if self.rules.can_stop or (
            self.hooks is not None
            and self.hooks.has_any(HookEvent.BEFORE_TOOL, HookEvent.BEFORE_PATCH)
        ):
            return False
        if self.mode is Mode.FULL:
            return True
        if self.mode is not Mode.AUTO:
            return False
        return self.situation.is_isolated and not _leaves_sandbox(tool)

    def allows_ahead(self, command: Command) -> bool:
        """Whether a command may run before the model has asked for it: only what needs no question."""
        if self.hooks is not None and self.hooks.has(HookEvent.BEFORE_TOOL, ExecCommand.name):
            return False
        judgement = judge(_line(command, command.script or ""), self.rules, self._here(command.cwd))
        return judgement.outcome is Outcome.RUN

    # -- calls

    async def admit(self, tool: Tool, arguments: str, context: ToolContext) -> str | None:
        """Why the call may not run, in words for the model; None when it may.

        Cancelling takes back a question that is open.
        """
        call = None
        if isinstance(tool, ExecCommand):
            call = requested(arguments, context.shown_at or context.workspace)
            if call is None:
                return None  # the tool says better what is wrong with it
        case = self._judged(tool, arguments, call)
        if case.judgement.outcome is not Outcome.DECLINE:
            is_patch = isinstance(tool, ApplyPatch) or (call is not None and call.is_patch)
            denial = await self._hooked(tool, arguments, context, is_patch=is_patch)
            if denial is not None:
                case = replace(case, judgement=Judgement(Outcome.DECLINE, "hook", denial))
        if case.judgement.outcome is Outcome.ASK:
            return await self._asked(case, arguments, call, context)
        return self._settled(case, context)

    def finished(
        self, tool: Tool, arguments: str, result: ToolResult, context: ToolContext
    ) -> None:
        """A call has ended; hooks that want to know run beside the loop."""
        if self.hooks is None or not self.hooks.has_any(
            HookEvent.AFTER_TOOL, HookEvent.AFTER_PATCH
        ):
            return
        fields = self._fields(tool, arguments, context)
        fields |= {"is_ok": result.is_ok, "output": result.text, "item": result.item}
        self.hooks.after(HookEvent.AFTER_TOOL, tool.name, fields)
        if getattr(result.item, "type", "") == "file_change" or isinstance(tool, ApplyPatch):
            self.hooks.after(HookEvent.AFTER_PATCH, tool.name, fields)

    async def approve_apply(self, changes: Sequence[Change], risks: Sequence[Risk]) -> bool:
        """Whether these changes may be written into the user's checkout, unless the user has just
        said so."""
        if self.mode is Mode.FULL:
            return True
        paths = [change.path for change in changes]
        if self.mode is Mode.READ_ONLY:
            self.record("approval", subject="apply", paths=paths, outcome="declined", by="mode")
            return False
        decision = await self._ask(about_changes(paths, risks))
        outcome = "allowed" if decision is not None and decision.is_allowed else "declined"
        by = "nobody" if decision is None else "person"
        self.record("approval", subject="apply", paths=paths, outcome=outcome, by=by)
        return outcome == "allowed"

    # -- judging

    def _judged(self, tool: Tool, arguments: str, call: Requested | None) -> _Case:
        if call is not None and not call.is_patch:
            line = _line(call.command, call.shown)
            return _Case(
                tool, line.text, self._of_line(line, call.command.cwd), line, call.command.cwd
            )
        if call is not None or isinstance(tool, ApplyPatch):
            return _Case(tool, "apply a patch", self._of_patch())
        title = tool.describe(arguments) if isinstance(tool, OutsideTool) else tool.name
        return _Case(tool, title, self._of_tool(tool))

    def _of_line(self, line: Line, directory: str) -> Judgement:
        judgement = judge(line, self.rules, self._here(directory))
        is_known = (line.text, tuple(line.argv or ()), directory) in self._lines
        if judgement.outcome is Outcome.ASK and is_known:
            return Judgement(Outcome.RUN, "person", "allowed until the conversation ends")
        return judgement

    def _here(self, directory: str) -> Situation:
        return replace(self.situation, directory=directory)

    def _of_patch(self) -> Judgement:
        if self.mode is Mode.READ_ONLY:
            return Judgement(
                Outcome.DECLINE, "mode", "no patches are taken now, only reading commands"
            )
        return Judgement(Outcome.RUN, "mode")

    def _of_tool(self, tool: Tool) -> Judgement:
        rules = self.rules
        if rule := _about(rules.deny_tools, tool):
            reason = f"a rule denies the tool {tool.name!r}"
            return Judgement(
                Outcome.DECLINE,
                "rule",
                f"{reason}: {rule.reason}" if rule.reason else reason,
                rule.name,
            )
        if rule := _about(rules.ask_tools, tool):
            why = rule.reason or "a rule wants it asked for"
            return Judgement(Outcome.ASK, "rule", why, rule.name)
        if rule := _about(rules.allow_tools, tool):
            return Judgement(Outcome.RUN, "rule", "", rule.name)
        if self.mode is Mode.FULL or not _leaves_sandbox(tool):
            return Judgement(Outcome.RUN, "mode")
        if self.mode is Mode.READ_ONLY:
            return Judgement(
                Outcome.DECLINE,
                "mode",
                "it acts outside the sandbox, and only reading is allowed now",
            )
        return Judgement(Outcome.ASK, "mode", "it acts outside the sandbox")

    async def _hooked(
        self, tool: Tool, arguments: str, context: ToolContext, *, is_patch: bool
    ) -> str | None:
        if self.hooks is None:
            return None
        fields = self._fields(tool, arguments, context)
        denial = await self.hooks.before(HookEvent.BEFORE_TOOL, tool.name, fields)
        if denial is None and is_patch:
            denial = await self.hooks.before(HookEvent.BEFORE_PATCH, tool.name, fields)
        return denial

    def _fields(self, tool: Tool, arguments: str, context: ToolContext) -> dict[str, Any]:
        return {"tool": tool.name, "arguments": arguments, "item_id": context.item_id}

    # -- asking

    async def _asked(
        self, case: _Case, arguments: str, call: Requested | None, context: ToolContext
    ) -> str | None:
        async with self._asking:
            fresh = self._judged(case.tool, arguments, call)  # an answer before may have settled it
            if fresh.judgement.outcome is not Outcome.ASK:
                return self._settled(fresh, context)
            lasting = None
            if case.line is None:
                request = about_tool(
                    case.tool.name, case.title, fresh.judgement.reason, context.item_id
                )
            else:
                lasting = lasting_rules(case.line, self.rules, self._here(case.directory))
                request = about_command(
                    case.line, case.directory, fresh.judgement.reason, context.item_id, lasting
                )
            decision = await self._ask_now(request)
        if decision is None:
            denied = Judgement(Outcome.DECLINE, "nobody", f"{fresh.judgement.reason}; {NOBODY}")
            return self._settled(replace(fresh, judgement=denied), context)
        if decision.verdict is Verdict.ALWAYS:
            self._remember(case, decision, lasting)
        outcome = Outcome.RUN if decision.is_allowed else Outcome.DECLINE
        reason = "" if decision.is_allowed else _words(decision)
        settled = Judgement(outcome, "person", reason, ", ".join(decision.rules))
        return self._settled(replace(fresh, judgement=settled), context)

    def _remember(self, case: _Case, decision: Decision, lasting: Any) -> None:
        """What a person has allowed until the conversation ends."""
        if case.line is None:
            rule = ToolRule(case.tool.name)
            self.rules = replace(self.rules, allow_tools=(*self.rules.allow_tools, rule))
        elif added := (lasting or {}).get(decision.rules):
            self.rules = replace(self.rules, allow=(*self.rules.allow, *added))
        else:
            self._lines.add((case.line.text, tuple(case.line.argv or ()), case.directory))

    async def _ask(self, request: ApprovalRequest) -> Decision | None:
        async with self._asking:
            return await self._ask_now(request)

    async def _ask_now(self, request: ApprovalRequest) -> Decision | None:
        """The answer; None when nobody can be asked."""
        if self.approver is None:
            return None
        start_ns = self.clock.now_ns()
        self.on_question(True)
        try:
            return await self.approver.ask(request)
        finally:
            self.waited_s += (self.clock.now_ns() - start_ns) / 1e9
            self.on_question(False)

    def _settled(self, case: _Case, context: ToolContext) -> str | None:
        """Writes the decision down; the words for the model when it is a denial."""
        judgement = case.judgement
        is_declined = judgement.outcome is Outcome.DECLINE
        self.record(
            "approval",
            subject=case.tool.name,
            item_id=context.item_id,
            title=case.title,
            outcome="declined" if is_declined else "allowed",
            by=judgement.by,
            mode=self.mode.value,
            reason=judgement.reason,
            rule=judgement.rule,
        )
        if not is_declined:
            return None
        return f"declined, nothing was run: {judgement.reason}"


def _words(decision: Decision) -> str:
    return f"the user says: {decision.word}" if decision.word else "the user does not want it"


def _line(command: Command, shown: str) -> Line:
    if command.argv is None:
        return Line(command.script or shown)
    return Line.of_argv(command.argv)


def _leaves_sandbox(tool: Tool) -> bool:
    # A check against the protocol takes longer than all the rest of a call that nobody stops.
    return bool(getattr(tool, "leaves_sandbox", False))


def _about(rules: Sequence[ToolRule], tool: Tool) -> ToolRule | None:
    return next((rule for rule in rules if rule.is_about(tool.name)), None)
