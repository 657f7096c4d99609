"""Rules of the user about commands: what is allowed, asked for, or denied.

A rule is one simple command written as in a shell, such as ``git status`` or ``pytest *``. An
allowing rule holds for exactly these words, a star at its end for any that follow; a denying or an
asking one holds for whatever follows in any case, and for the same options in another order.
"""

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from tightloop.agent.approval.acts import Act, acts_of_argv, acts_of_line
from tightloop.agent.approval.bash_line import Assignment
from tightloop.agent.approval.bash_words import NotUnderstood, Word
from tightloop.agent.approval.reading import words_are_data
from tightloop.agent.approval.turning import RUNNERS, RUNNING, hands_over, star_covers
from tightloop.agent.approval.wrappers import BUILTINS, SHELLS, WRAPPERS

_SHELL_SIGNS = re.compile(r"[;|&<>`$\n\\]")
_ASSIGNED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_HIDING = re.compile(r"[\\'\"]")
HARMLESS_VARIABLES = re.compile(
    r"LANG|LC_[A-Z]+|TZ|CI|NO_COLOR|FORCE_COLOR|CLICOLOR(_FORCE)?|COLUMNS|LINES"
    r"|PYTHON(UNBUFFERED|DONTWRITEBYTECODE|HASHSEED)"
)
"""Environment variables that change how things look, and nothing of what runs."""
_CODE_VARIABLES = re.compile(
    r"BASH_ENV|ENV|BASH_FUNC.*|PROMPT_COMMAND|PS[0-9]|PATH|IFS|SHELLOPTS|BASHOPTS|LD_.*|DYLD_.*|GIT_.*"
    r"|.*PAGER|.*EDITOR|VISUAL|BROWSER|LESSOPEN|LESSCLOSE|PYTHON(STARTUP|BREAKPOINT|HOME|INSPECT)"
    r"|PERL5.*|RUBYOPT|NODE_OPTIONS|npm_config_.*|MAKEFLAGS|SHELL"
)
"""Variables whose value is run, or names what is."""
_OWN_VARIABLES = re.compile(r"(?!npm_)[a-z][a-z0-9_]*")
"""Names that scripts use for themselves. By custom, programs look for upper case."""


class RuleError(ValueError):
    """A rule that cannot be used; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A rule's command. ``is_literal``: stars are characters, as in what a person has allowed."""

    text: str
    tokens: tuple[str, ...]
    assignments: tuple[str, ...] = ()
    is_literal: bool = False

    @staticmethod
    def parse(text: str, *, allows: bool) -> "Pattern":
        """A pattern as a person writes it. Raises RuleError."""
        if sign := _SHELL_SIGNS.search(text):
            raise RuleError(f"{text!r}: a rule is one command without {sign[0]!r}")
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise RuleError(f"{text!r}: {error}") from error
        num_assigned = 0
        while num_assigned < len(words) and _ASSIGNED.match(words[num_assigned]):
            num_assigned += 1
        assignments, tokens = tuple(words[:num_assigned]), tuple(words[num_assigned:])
        if not tokens or "*" in tokens[0]:
            raise RuleError(f"{text!r}: a rule begins with the name of a program, without a star")
        if not allows and assignments:
            raise RuleError(f"{text!r}: leave {assignments[0]!r} out: it holds with any variables")
        name = tokens[0].rpartition("/")[2]
        if allows and (name in WRAPPERS or name in BUILTINS):
            raise RuleError(f"{text!r}: what {name!r} runs is judged by itself: allow that")
        if allows and tokens[-1] == "*" and _runs_anything(name, tokens[1:-1]):
            raise RuleError(f"{text!r} allows every program there is: name one before the star")
        if allows and name in SHELLS and any("c" in one for one in tokens if one[:1] == "-"):
            raise RuleError(f"{text!r}: what {name!r} runs is judged by itself: allow that")
        return Pattern(text, tokens, assignments)

    @staticmethod
    def exactly(act: Act) -> "Pattern | None":
        """The pattern of just this act; None when a word of it is not known."""
        words = [word.text for word in act.words]
        if any(word is None for word in words) or act.opaque or not words:
            return None
        given = [f"{one.name}={one.value.text}" for one in act.assignments]
        if any(one.value.text is None for one in act.assignments):
            return None
        tokens = tuple(word or "" for word in words)
        return Pattern(shlex.join([*given, *tokens]), tokens, tuple(given), is_literal=True)

    # -- allowing

    def allows(self, act: Act) -> bool:
        """Whether all of the act is covered."""
        words = act.words
        if not words or words[0].text != self.tokens[0]:
            return False
        if not all(_is_harmless(one.name, one.value, self.assignments) for one in act.assignments):
            return False
        has_star = not self.is_literal and self.tokens[-1] == "*" and len(self.tokens) > 1
        fixed = self.tokens[:-1] if has_star else self.tokens
        if len(words) < len(fixed) or (len(words) > len(fixed) and not has_star):
            return False
        if not all(self._covers(token, words, index) for index, token in enumerate(fixed)):
            return False
        if act.opaque:  # only what was spelled out: code behind an option that the rule names
            return len(fixed) > 1 and all("*" not in one or self.is_literal for one in fixed)
        return all(star_covers(words, index) for index in range(len(fixed), len(words)))

    def _covers(self, token: str, words: Sequence[Word], index: int) -> bool:
        text = words[index].text
        if self.is_literal or "*" not in token:
            return text == token
        is_match = text is not None and words[index].is_single and _glob(token, text)
        return is_match and star_covers(words, index)

    # -- denying and asking

    def meets(self, act: Act) -> "bool | None":
        """Whether the act is of this kind; None when that cannot be told."""
        return _meets(self._needed(), act.words)

    def meets_wrapper(self, wrappers: Sequence[str]) -> "bool | None":
        """As ``meets``, for programs that were seen through, whose options are not kept."""
        needed = self._needed()
        if needed[0].rpartition("/")[2] not in wrappers:
            return False
        return True if len(needed) == 1 else None

    def _needed(self) -> tuple[str, ...]:
        return self.tokens[:-1] if self.tokens[-1] == "*" and len(self.tokens) > 1 else self.tokens

    def is_named_in(self, text: str) -> bool:
        """Whether a text has the program's name, and all that has to follow it, in it."""
        names = (self.tokens[0].rpartition("/")[2], *self._needed()[1:])
        return all(
            "*" in name or re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in names
        )


def _runs_anything(name: str, before_star: Sequence[str]) -> bool:
    if name in RUNNERS or name in SHELLS:
        return not before_star
    return len(before_star) == 1 and before_star[0] in RUNNING.get(name, ())


def _glob(token: str, text: str) -> bool:
    """Only stars are special."""
    return fnmatchcase(text, re.sub(r"([?\[])", r"[\1]", token))


def _is_harmless(name: str, value: Word, spelled: Sequence[str]) -> bool:
    if value.text is not None and f"{name}={value.text}" in spelled:
        return True
    return HARMLESS_VARIABLES.fullmatch(name) is not None


def _may_run_code(assignment: Assignment) -> bool:
    return _CODE_VARIABLES.fullmatch(assignment.name) is not None


def assigns_harmlessly(act: Act) -> bool:
    """Whether an act without a program, or a program that reads, is given variables of no effect."""
    allowed = HARMLESS_VARIABLES if act.words else _OWN_VARIABLES
    return all(
        allowed.fullmatch(one.name) or HARMLESS_VARIABLES.fullmatch(one.name)
        for one in act.assignments
    )


def _meets(needed: Sequence[str], words: Sequence[Word]) -> bool | None:
    """Whether the words, from the program's name on, have what is needed, in order.

    Options may stand between, with a value each; options that are needed may stand anywhere.
    """
    if not words:
        return False
    first = words[0]
    wanted = needed[0].rpartition("/")[2]
    if first.text is not None and first.text.rpartition("/")[2] != wanted:
        return False
    options = [one for one in needed[1:] if one.startswith("-")]
    operands = [one for one in needed[1:] if not one.startswith("-")]
    is_sure = first.text is not None and all(word.text is not None for word in words)
    found = _has_operands(operands, words[1:]) and all(_has_option(one, words) for one in options)
    if found and first.text is not None:
        return True
    return False if is_sure else None


def _has_operands(operands: Sequence[str], words: Sequence[Word]) -> bool:
    if not operands:
        return True
    left = list(words)
    while left:
        text = left.pop(0).text
        if text is not None and not text.startswith("-"):
            return _glob(operands[0], text) and _has_operands(operands[1:], left)
        if (
            text is not None
            and "=" not in text
            and left
            and _has_operands(operands, left[1:])  # the next one is the option's value
        ):
            return True
    return False


def _has_option(option: str, words: Sequence[Word]) -> bool:
    texts = [word.text or "" for word in words[1:]]
    if option.startswith("--"):
        name = option.partition("=")[0]
        return any(
            len(text) > 2 and name.startswith(text.partition("=")[0]) and text.startswith("--")
            for text in texts
        )
    letters = {letter for text in texts if re.match(r"-[^-]", text) for letter in text[1:]}
    return option in texts or set(option[1:]) <= letters


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern and why it is there, in the user's words. ``place`` names it in messages."""

    pattern: Pattern
    reason: str = ""
    place: str = ""

    def __str__(self) -> str:
        return repr(self.pattern.text)


@dataclass(frozen=True, slots=True)
class ToolRule:
    """A rule about a tool, by its name; stars stand for anything."""

    name: str
    reason: str = ""

    def is_about(self, name: str) -> bool:
        """Whether it holds for this tool."""
        return _glob(self.name, name)


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of a conversation: a denial wins over a question, a question over a permission."""

    deny: tuple[Rule, ...] = ()
    ask: tuple[Rule, ...] = ()
    allow: tuple[Rule, ...] = ()
    deny_tools: tuple[ToolRule, ...] = ()
    ask_tools: tuple[ToolRule, ...] = ()
    allow_tools: tuple[ToolRule, ...] = ()

    @property
    def can_stop(self) -> bool:
        """Whether there is any that could stop something."""
        return bool(self.deny or self.ask or self.deny_tools or self.ask_tools)

    def allowing(self, act: Act) -> Rule | None:
        """The rule that allows all of the act."""
        return next((rule for rule in self.allow if rule.pattern.allows(act)), None)


@dataclass(slots=True)
class Met:
    """What rules say about a line: ``sure`` hold, ``perhaps`` cannot be excluded."""

    sure: Rule | None = None
    perhaps: Rule | None = None
    _seen: set[tuple[str, ...]] = field(default_factory=set)

    def look_at(self, rules: Sequence[Rule], act: Act, depth: int = 0) -> None:
        """Add what the rules say about this act, and about what it may run in turn."""
        for rule in rules:
            self._note(rule, rule.pattern.meets(act))
            self._note(rule, rule.pattern.meets_wrapper(act.wrappers))
            if act.opaque or any(map(_may_run_code, act.assignments)):
                self._note(rule, None)
            for one in act.assignments:
                self._look_into(rules, rule, one.value, depth)
        if not act.words or words_are_data(act.words):
            return
        if hands_over(act.words):
            self._note(rules[0], None)
        for index, word in enumerate(act.words[1:], start=1):
            self._look_at_rest(rules, act.words[index:], depth)
            for rule in rules:
                self._look_into(rules, rule, word, depth)

    def _look_at_rest(self, rules: Sequence[Rule], words: Sequence[Word], depth: int) -> None:
        """A program that is not known here may run what its arguments name."""
        texts = tuple(word.text or "" for word in words)
        if depth > 2 or not texts[0] or texts[0].startswith("-") or texts in self._seen:
            return
        self._seen.add(texts)
        for rule in rules:
            if rule.pattern.meets(Act(tuple(words))) is True:
                self._note(rule, True)
        if texts[0].rpartition("/")[2] not in (*SHELLS, *WRAPPERS, *BUILTINS):
            return
        try:
            inner = acts_of_argv(texts)
        except NotUnderstood:
            return
        for act in inner:
            if not act.opaque:
                self.look_at(rules, act, depth + 1)

    def _look_into(self, rules: Sequence[Rule], rule: Rule, word: Word, depth: int) -> None:
        """A word may itself be a command line for somebody."""
        text = word.text or ""
        if depth > 2 or ("text", text) in self._seen:
            return
        if rule.pattern.is_named_in(text):
            self._note(rule, None)
        elif _HIDING.search(text):
            self._seen.add(("text", text))
            inner = Met()
            with suppress(NotUnderstood):
                for act in acts_of_line(text):
                    inner.look_at(rules, act, depth + 1)
            if inner.sure is not None:
                self._note(inner.sure, None)

    def _note(self, rule: Rule, answer: bool | None) -> None:
        if answer is True:
            self.sure = self.sure or rule
        elif answer is None:
            self.perhaps = self.perhaps or rule
