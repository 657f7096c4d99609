"""The tables ``[approval]``, ``[[rules]]`` and ``[hooks]`` of the user's configuration.

The file is that of ``sandbox.policies``: the user's own, never the repository's.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tightloop.agent.approval.hooks import Hook, HookEvent
from tightloop.agent.approval.interface import Mode
from tightloop.agent.approval.rules import Pattern, Rule, RuleError, Rules, ToolRule
from tightloop.sandbox.policies import PolicyError, config_path, convert_table, read_tables

_KINDS = ("allow", "ask", "deny", "allow_tool", "ask_tool", "deny_tool")
_ON_FAILURE = {"deny": True, "continue": False}


class ApprovalTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[approval]``."""

    mode: str | None = None


class RuleTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of ``[[rules]]``: exactly one of the kinds, and why."""

    allow: str | None = None
    ask: str | None = None
    deny: str | None = None
    allow_tool: str | None = None
    ask_tool: str | None = None
    deny_tool: str | None = None
    reason: str = ""


class HookTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of ``[[hooks.EVENT]]``."""

    command: list[str]
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 10.0
    tools: list[str] = []
    environment: list[str] = []
    on_failure: str | None = None


@dataclass(frozen=True, slots=True)
class ApprovalConfig:
    """What the user has configured. ``place`` names the file in messages."""

    place: str = "the configuration"
    mode: Mode | None = None
    rules: Rules = field(default_factory=Rules)
    hooks: Mapping[HookEvent, Sequence[Hook]] = field(default_factory=dict)


def read_approval(path: Path | None = None) -> ApprovalConfig:
    """The tables of a file, by the rules of ``policies.read_config``. Raises PolicyError."""
    return approval_of(read_tables(path), str(path or config_path()))


def approval_of(values: Mapping[str, Any], place: str) -> ApprovalConfig:
    """The tables of a decoded file. Raises PolicyError naming the file and the key."""
    table = convert_table(values.get("approval", {}), ApprovalTable, f"{place}: [approval]")
    mode = None if table.mode is None else mode_of(table.mode, f"{place}: [approval] mode")
    return ApprovalConfig(
        place, mode, _rules(values.get("rules", []), place), _hooks(values.get("hooks", {}), place)
    )


def mode_of(name: str, place: str) -> Mode:
    """The mode of this name. Raises PolicyError naming where it was asked for."""
    try:
        return Mode(name)
    except ValueError as error:
        known = ", ".join(Mode)
        raise PolicyError(f"{place}: there is no mode {name!r}; known are {known}") from error


def _rules(values: Any, place: str) -> Rules:
    if not isinstance(values, list):
        raise PolicyError(f"{place}: [[rules]] must be an array of tables")
    found: dict[str, list[Any]] = {kind: [] for kind in _KINDS}
    for number, value in enumerate(values, start=1):
        where = f"{place}: [[rules]] number {number}"
        table = convert_table(value, RuleTable, where)
        given = [kind for kind in _KINDS if getattr(table, kind) is not None]
        if len(given) != 1:
            named = " and ".join(given) or "none"
            raise PolicyError(f"{where}: needs exactly one of {', '.join(_KINDS)}; has {named}")
        kind, text = given[0], getattr(table, given[0])
        if table.reason and kind.startswith("allow"):
            raise PolicyError(f"{where}: reason: nobody is told why something is allowed")
        if kind.endswith("_tool"):
            found[kind].append(ToolRule(text, table.reason))
            continue
        try:
            pattern = Pattern.parse(text, allows=kind == "allow")
        except RuleError as error:
            raise PolicyError(f"{where}: {kind}: {error}") from error
        found[kind].append(Rule(pattern, table.reason, where))
    return Rules(
        deny=tuple(found["deny"]),
        ask=tuple(found["ask"]),
        allow=tuple(found["allow"]),
        deny_tools=tuple(found["deny_tool"]),
        ask_tools=tuple(found["ask_tool"]),
        allow_tools=tuple(found["allow_tool"]),
    )


def _hooks(values: Any, place: str) -> dict[HookEvent, Sequence[Hook]]:
    if not isinstance(values, dict):
        raise PolicyError(f"{place}: [hooks] must be a table")
    known = ", ".join(HookEvent)
    hooks: dict[HookEvent, Sequence[Hook]] = {}
    for name, tables in values.items():
        if name not in list(HookEvent):
            raise PolicyError(f"{place}: [hooks] has no event {name!r}; known are {known}")
        if not isinstance(tables, list):
            raise PolicyError(f"{place}: [[hooks.{name}]] must be an array of tables")
        hooks[HookEvent(name)] = tuple(
            _hook(one, HookEvent(name), f"{place}: [[hooks.{name}]] number {number}")
            for number, one in enumerate(tables, start=1)
        )
    return hooks


def _hook(value: Any, event: HookEvent, where: str) -> Hook:
    table = convert_table(value, HookTable, where)
    if not table.command or not table.command[0] or any("\0" in one for one in table.command):
        raise PolicyError(f"{where}: command must be a list of words that begins with a program")
    if table.on_failure is not None and not event.can_deny:
        raise PolicyError(f"{where}: on_failure: nothing waits for hooks of {event}")
    if table.tools and not event.value.endswith("_tool"):
        raise PolicyError(f"{where}: tools: hooks of {event} are for no tool in particular")
    on_failure = table.on_failure or "deny"
    if on_failure not in _ON_FAILURE:
        wanted = " or ".join(_ON_FAILURE)
        raise PolicyError(f"{where}: on_failure must be {wanted}, got {on_failure!r}")
    return Hook(
        (os.path.expanduser(table.command[0]), *table.command[1:]),
        table.timeout_s,
        tuple(table.tools),
        tuple(table.environment),
        _ON_FAILURE[on_failure],
    )
