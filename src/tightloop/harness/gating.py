"""The approval mode, the rules and the hooks of a conversation, from options and configuration.

A mode never weakens a policy: ``full`` goes with ``full-access`` only, and where nothing isolates,
``auto`` asks as ``ask`` does.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tightloop.agent import events as said
from tightloop.agent.approval.configuration import ApprovalConfig, mode_of, read_approval
from tightloop.agent.approval.gate import Gate
from tightloop.agent.approval.hooks import HookEvent, HookResult, Hooks
from tightloop.agent.approval.interface import Approver, Mode
from tightloop.agent.approval.judge import Situation
from tightloop.agent.terminal.printable import printable
from tightloop.harness.audience import Audience
from tightloop.harness.settings import Settings
from tightloop.sandbox.policies import DEFAULT, FULL_ACCESS, NamedPolicy, PolicyError, load_policy
from tightloop.trace.log import RunLog


@dataclass(frozen=True, slots=True)
class Gating:
    """What was chosen before anything is opened. ``asked`` is the mode that somebody named."""

    config: ApprovalConfig
    policy: NamedPolicy
    asked: Mode | None

    def mode(self, isolation: str) -> Mode:
        """The mode under this isolation: as named, else ``full`` where nothing isolates, by
        somebody's own choice, else ``auto``."""
        return self.asked or (Mode.FULL if isolation == "none" else Mode.AUTO)

    def remark(self, isolation: str) -> str:
        """What a person should know of the mode; empty when it is the usual one."""
        if self.asked is Mode.FULL:
            return "approval mode full: nothing is asked, whatever the model wants to run"
        if self.asked is Mode.AUTO and isolation == "none":
            return (
                "approval mode auto: nothing isolates here, so what does not only read is asked for"
            )
        return ""


def choose(settings: Settings) -> Gating:
    """What holds for these settings. Raises PolicyError for a mode that would weaken the policy."""
    config = read_approval(settings.config)
    asked = config.mode
    if settings.approval is not None:
        asked = mode_of(settings.approval, "--approval")
    policy = load_policy(settings.policy, settings.config)
    if asked is Mode.FULL and policy.level != FULL_ACCESS:
        if settings.policy is not None or policy.name != DEFAULT:
            raise PolicyError(
                f"the approval mode 'full' has no isolation, and the policy {policy.name!r} wants "
                "some: choose --policy full-access, or another mode"
            )
        policy = load_policy(FULL_ACCESS, settings.config)
    return Gating(config, policy, asked)


def open_gate(
    stack: AsyncExitStack,
    gating: Gating,
    audience: Audience,
    log: RunLog,
    *,
    isolation: str,
    workspace: Path,
    approver: Approver | None,
    base: dict[str, Any],
) -> Gate:
    """A gate that writes into the log. Hooks of the session's start run; those of its end when the
    stack is closed."""

    def note(result: HookResult) -> None:
        log.write("hook", **_fields(result))
        if result.failure:
            command = printable(result.command[0])
            audience.note(f"hook {command} ({result.event}) failed: {printable(result.failure)}")

    hooks = None
    if gating.config.hooks:
        hooks = Hooks(gating.config.hooks, note, base, Path(base["repository"]))
        stack.push_async_callback(_end, hooks)
        hooks.after(HookEvent.SESSION_START, "", {})
    policy = gating.policy
    situation = Situation(
        gating.mode(isolation),
        is_isolated=isolation != "none",
        cannot_write=policy.is_read_only and isolation != "none",
        shadowed=_Shadowing(workspace),
    )
    if remark := gating.remark(isolation):
        audience.note(remark)
    return Gate(gating.config.rules, situation, approver, hooks, log.write)


def turn_hooks(gate: Gate) -> Callable[[said.Event], None]:
    """A listener that runs the hooks of turns."""
    hooks = gate.hooks
    if hooks is None:
        return lambda _event: None

    def listen(event: said.Event) -> None:
        if isinstance(event, said.TurnStarted):
            hooks.after(HookEvent.TURN_START, "", {})
        elif isinstance(event, said.TurnCompleted | said.TurnFailed):
            error = event.error.message if isinstance(event, said.TurnFailed) else None
            hooks.after(HookEvent.TURN_END, "", {"is_ok": error is None, "error": error})

    return listen


async def _end(hooks: Hooks) -> None:
    hooks.after(HookEvent.SESSION_END, "", {})
    await hooks.close()


def _fields(result: HookResult) -> dict[str, Any]:
    return {
        "event": result.event,
        "command": result.command,
        "status": result.status,
        "output": result.output,
        "error": result.error,
        "wall_s": result.wall_s,
        "failure": result.failure,
        "denial": result.denial,
    }


@dataclass(frozen=True, slots=True)
class _Shadowing:
    """Whether the workspace's own environment, which comes first in the search path, has a program
    of a name: a repository could bring a ``cat`` of its own."""

    workspace: Path

    def __call__(self, name: str) -> bool:
        return "/" not in name and (self.workspace / ".venv" / "bin" / name).exists()
