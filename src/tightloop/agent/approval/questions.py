"""What a person is asked, worded; and what an answer may allow for longer than once."""

import shlex
from collections.abc import Mapping, Sequence

from tightloop.agent.approval.acts import Act
from tightloop.agent.approval.bash_words import NotUnderstood
from tightloop.agent.approval.interface import (
    ALLOW_ONCE,
    DENY,
    ApprovalRequest,
    Choice,
    Decision,
    Kind,
    Verdict,
)
from tightloop.agent.approval.judge import Line, Situation, why_not_reading
from tightloop.agent.approval.rules import Pattern, Rule, Rules
from tightloop.agent.approval.wrappers import SHELLS, is_interpreter
from tightloop.agent.terminal.printable import printable
from tightloop.sandbox.risks import Risk

MAX_DETAILS = 40
_WITH_SUBCOMMANDS = frozenset(
    [
        "git",
        "npm",
        "pnpm",
        "yarn",
        "cargo",
        "go",
        "uv",
        "pip",
        "docker",
        "make",
        "just",
        "gh",
        "tox",
    ]
)
_NEVER_WHOLE = frozenset(
    ["rm", "mv", "cp", "dd", "sudo", "doas", "su", "curl", "wget", "ssh", "scp", "rsync", "chmod",
     "chown", "kill", "pkill", "find", "tee", "ln", "sed", "awk", "crontab", "systemctl", "docker"]
)  # fmt: skip

Lasting = Mapping[tuple[str, ...], tuple[Rule, ...]]
"""By the texts that a person sees: the rules that an answer adds."""


def about_command(
    line: Line, directory: str, reason: str, item_id: str, lasting: Lasting
) -> ApprovalRequest:
    """Whether a command may run."""
    text = printable(line.text).rstrip("\n")
    first, *more = text.split("\n")
    details = [f"| {one}" for one in (first, *more)] if more else []
    if directory not in (".", ""):
        details.append(f"in {printable(directory)}")
    choices = [Choice("y", "once", ALLOW_ONCE)]
    for key, rules in zip("ap", lasting, strict=False):
        label = f"always: {printable(', '.join(rules))}"
        choices.append(Choice(key, label, Decision(Verdict.ALWAYS, rules=rules)))
    if not lasting:
        choices.append(Choice("a", "always this line", Decision(Verdict.ALWAYS)))
    choices.append(Choice("n", "no", DENY))
    title = f"run: {first}" + (" ..." if more else "")
    return ApprovalRequest(
        Kind.COMMAND, title, printable(reason), _shortened(details), item_id, tuple(choices)
    )


def about_tool(name: str, title: str, reason: str, item_id: str) -> ApprovalRequest:
    """Whether a tool may act."""
    always = Decision(Verdict.ALWAYS, rules=(name,))
    choices = (
        Choice("y", "once", ALLOW_ONCE),
        Choice("a", f"always: {printable(name)}", always),
        Choice("n", "no", DENY),
    )
    first, *more = printable(title).split("\n")
    return ApprovalRequest(
        Kind.TOOL, f"use: {first}", printable(reason), _shortened(more), item_id, choices
    )


def about_changes(paths: Sequence[str], risks: Sequence[Risk]) -> ApprovalRequest:
    """Whether changes may be written into the checkout; what to look at comes first."""
    ordered = sorted(risks, key=lambda risk: not risk.is_severe)
    details = [
        f"look at it first: {printable(risk.path)} ({printable(risk.reason)})" for risk in ordered
    ]
    details += [printable(path) for path in paths]
    files = "1 file" if len(paths) == 1 else f"{len(paths)} files"
    choices = (Choice("y", "write them", ALLOW_ONCE), Choice("n", "not now", DENY))
    return ApprovalRequest(
        Kind.APPLY,
        f"write {files} into your checkout",
        "the work so far is in a private copy",
        _shortened(details),
        choices=choices,
    )


def lasting_rules(line: Line, rules: Rules, situation: Situation) -> Lasting:
    """What would let this line run by itself: its very commands, and one prefix where that is wise.

    Empty when no rule could, as for lines that are not understood.
    """
    try:
        acts = line.acts()
    except NotUnderstood:
        return {}
    wanting = [act for act in acts if why_not_reading([act], situation) and not rules.allowing(act)]
    exact = [Pattern.exactly(act) for act in wanting]
    if not exact or any(
        pattern is None or not _suffices(pattern, act)
        for pattern, act in zip(exact, wanting, strict=True)
    ):
        return {}
    found: dict[tuple[str, ...], tuple[Rule, ...]] = {}
    kept = [pattern for pattern in exact if pattern is not None]
    found[tuple(one.text for one in kept)] = tuple(Rule(one, place="a person") for one in kept)
    wider = _prefix(wanting[0]) if len(wanting) == 1 else None
    if wider is not None and wider.allows(wanting[0]):
        found[(wider.text,)] = (Rule(wider, place="a person"),)
    return found


def _suffices(pattern: Pattern | None, act: Act) -> bool:
    return pattern is not None and not act.redirects and pattern.allows(act)


def _prefix(act: Act) -> Pattern | None:
    """The program, with its subcommand if it has some, and anything behind it."""
    name = act.program or ""
    if name in _NEVER_WHOLE or name in SHELLS or "/" in name:
        return None
    num_words = 2 if name in _WITH_SUBCOMMANDS else 1
    if is_interpreter(name):
        if len(act.words) < 3 or act.words[1].text != "-m":
            return None
        num_words = 3
    words = [word.text or "" for word in act.words[:num_words]]
    if len(words) < num_words or any(not word or "*" in word for word in words):
        return None
    if num_words == 2 and words[1].startswith("-"):
        return None
    return Pattern(f"{shlex.join(words)} *", (*words, "*"))


def _shortened(details: Sequence[str]) -> tuple[str, ...]:
    if len(details) <= MAX_DETAILS:
        return tuple(details)
    left_out = len(details) - MAX_DETAILS
    return (*details[:MAX_DETAILS], f"... and {left_out} more lines")
