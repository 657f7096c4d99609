"""What becomes of a command: it runs, it is asked for, or it is declined.

First the rules that stop, then those that allow, then the mode. What is not understood is never
allowed by a rule and never counts as reading.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tightloop.agent.approval.acts import Act, acts_of_argv, acts_of_line
from tightloop.agent.approval.bash_line import Redirect
from tightloop.agent.approval.bash_words import NotUnderstood
from tightloop.agent.approval.interface import Mode
from tightloop.agent.approval.reading import leaves_directory, reads_only
from tightloop.agent.approval.rules import Met, Rule, Rules, assigns_harmlessly
from tightloop.agent.approval.wrappers import SHELLS, is_interpreter

_NOWHERE = frozenset({"/dev/null", "/dev/stdout", "/dev/stderr", "/dev/stdin"})


class Outcome(StrEnum):
    """What is to be done with a call."""

    RUN = "run"
    ASK = "ask"
    DECLINE = "decline"


@dataclass(frozen=True, slots=True)
class Judgement:
    """An outcome and who decided: ``reading``, ``rule``, ``mode`` or ``sandbox``."""

    outcome: Outcome
    by: str
    reason: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """What holds where a command would run.

    ``is_isolated``: a sandbox keeps it from the rest of the machine. ``cannot_write``: the sandbox
    lets it change nothing. ``directory`` is where it starts, relative to the workspace. ``shadowed``
    tells whether the workspace has a program of that name in its search path.
    """

    mode: Mode = Mode.AUTO
    is_isolated: bool = True
    cannot_write: bool = False
    directory: str = "."
    shadowed: Callable[[str], bool] = field(default=lambda _name: False)

    @property
    def is_at_root(self) -> bool:
        """Whether it starts in the workspace's own directory."""
        return self.directory in (".", "")

    @property
    def is_inside(self) -> bool:
        """Whether it starts in the workspace, as far as the path says."""
        return not self.directory.startswith("/") and ".." not in self.directory.split("/")


@dataclass(frozen=True, slots=True)
class Line:
    """A command as the model gives it: a line for bash, or words that no shell reads."""

    text: str
    argv: Sequence[str] | None = None

    @staticmethod
    def of_argv(argv: Sequence[str]) -> "Line":
        """Words that no shell reads, shown as a shell would need them."""
        return Line(shlex.join(argv), tuple(argv))

    def acts(self) -> list[Act]:
        """What it comes to. Raises NotUnderstood."""
        return acts_of_line(self.text) if self.argv is None else acts_of_argv(self.argv)


def judge(line: Line, rules: Rules, situation: Situation) -> Judgement:
    """What becomes of this command."""
    acts: list[Act] | None
    try:
        acts = line.acts()
        not_understood = ""
    except NotUnderstood as error:
        acts, not_understood = None, str(error)
    denied = _met(rules.deny, acts, line)
    if denied.sure is not None:
        return _declined(denied.sure)
    asked = _met(rules.ask, acts, line)
    floor = _by_mode(acts, not_understood, rules, situation)
    if situation.mode is Mode.READ_ONLY and floor.outcome is Outcome.DECLINE:
        return floor  # a question would let through what this mode never does
    if asked.sure is not None:
        reason = asked.sure.reason or f"the rule {asked.sure} wants it asked for"
        return Judgement(Outcome.ASK, "rule", reason, str(asked.sure))
    perhaps = denied.perhaps or asked.perhaps
    if acts is not None and (allowed := _allowed(acts, rules, situation, perhaps)):
        return allowed
    if perhaps is not None:
        why = not_understood or _why_opaque(acts or [])
        return Judgement(
            Outcome.ASK, "rule", f"the rule {perhaps} may be about it: {why}", str(perhaps)
        )
    return floor


def _declined(rule: Rule) -> Judgement:
    reason = f"the rule {rule} denies it"
    return Judgement(
        Outcome.DECLINE, "rule", f"{reason}: {rule.reason}" if rule.reason else reason, str(rule)
    )


def _met(rules: Sequence[Rule], acts: Sequence[Act] | None, line: Line) -> Met:
    met = Met()
    if not rules:
        return met
    if acts is None:
        met.perhaps = next((one for one in rules if one.pattern.is_named_in(line.text)), rules[0])
        return met
    for act in acts:
        met.look_at(rules, act)
    if any(map(_writes, acts)) and any(map(_runs_a_file, acts)):
        met.perhaps = met.perhaps or rules[0]  # what it runs may be what it has just written
    return met


def _writes(act: Act) -> bool:
    return not all(map(_is_harmless_redirect, act.redirects))


def _runs_a_file(act: Act) -> bool:
    return act.name in SHELLS or is_interpreter(act.name) or "/" in (act.program or "")


def _allowed(
    acts: Sequence[Act], rules: Rules, situation: Situation, perhaps: Rule | None
) -> Judgement | None:
    """RUN when rules allow every act that does not only read."""
    if situation.mode is Mode.READ_ONLY or not situation.is_inside:
        return None
    used: Rule | None = None
    moves = [act for act in acts if act.program == "cd"]
    stays = situation.is_at_root and not moves
    for act in acts:
        if not all(map(_is_harmless_redirect, act.redirects)):
            return None
        if any(map(situation.shadowed, act.wrappers)):
            return None
        if act.opaque or not _reads(act, situation, moves):
            rule = rules.allowing(act)
            if rule is None or (perhaps is not None and not act.opaque and _has_unknown(act)):
                return None
            elsewhere = not stays or "find" in act.wrappers
            if elsewhere and "/" in (act.program or "") and not (act.program or "").startswith("/"):
                return None
            if any(not _goes_below(move) for move in moves):
                return None
            used = rule
    return None if used is None else Judgement(Outcome.RUN, "rule", "", str(used))


def _has_unknown(act: Act) -> bool:
    return any(word.text is None for word in act.words)


def _goes_below(move: Act) -> bool:
    return len(move.words) == 2 and not leaves_directory(move.words)


def _by_mode(
    acts: Sequence[Act] | None, not_understood: str, rules: Rules, situation: Situation
) -> Judgement:
    mode = situation.mode
    if mode is Mode.FULL or (mode is Mode.AUTO and situation.is_isolated):
        return Judgement(Outcome.RUN, "mode")
    if mode is Mode.READ_ONLY and situation.cannot_write:
        return Judgement(Outcome.RUN, "sandbox")
    why = not_understood and f"not understood: {not_understood}"
    if acts is not None:
        why = why_not_reading(acts, situation)
        if not why:
            return Judgement(Outcome.RUN, "reading")
    if mode is Mode.READ_ONLY:
        return Judgement(Outcome.DECLINE, "mode", f"only reading commands may run now; {why}")
    return Judgement(Outcome.ASK, "mode", why)


def why_not_reading(acts: Sequence[Act], situation: Situation) -> str:
    """Why these acts do not provably only read; empty when they do."""
    moves = [act for act in acts if act.program == "cd"]
    for act in acts:
        if act.opaque:
            return f"{act.plain()!r}: {act.opaque}"
        if not all(map(_is_harmless_redirect, act.redirects)):
            return f"{act.plain()!r} writes to a file" if act.words else "it writes to a file"
        if not assigns_harmlessly(act):
            names = ", ".join(one.name for one in act.assignments)
            return f"it sets {names}"
        if any(map(situation.shadowed, act.wrappers)):
            return f"the workspace has programs of its own by the name of {act.wrappers[0]!r}"
        if not _reads(act, situation, moves):
            return f"{act.plain()!r} may do more than read"
    return ""


def _reads(act: Act, situation: Situation, moves: Sequence[Act]) -> bool:
    """Whether the act, apart from redirections, provably changes nothing."""
    if act.opaque or not assigns_harmlessly(act):
        return False
    if not act.words:
        return True
    name = act.program or ""
    if not reads_only(act.words) or situation.shadowed(name):
        return False
    if name == "git" and (moves or not situation.is_at_root or "find" in act.wrappers):
        return False  # a directory below may be a repository with settings of its own
    return situation.is_isolated or (situation.is_inside and not leaves_directory(act.words))


def _is_harmless_redirect(redirect: Redirect) -> bool:
    text = redirect.target.text
    operator = redirect.operator
    if operator in ("<<", "<<-", "<<<"):
        return True
    if operator in (">&", "<&"):
        return text is not None and (text.rstrip("-").isdigit() or text in ("-", "/dev/null"))
    if text is None or operator == "<>":
        return False
    return text in _NOWHERE or (operator == "<" and not text.startswith("/dev/"))


def _why_opaque(acts: Sequence[Act]) -> str:
    for act in acts:
        if act.opaque:
            return act.opaque
        if _has_unknown(act):
            return f"words of {act.plain()!r} are only known when it runs"
    return "it could be meant"
