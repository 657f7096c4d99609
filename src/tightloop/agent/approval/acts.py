"""What a command line comes to: the programs it runs, seen through whatever runs them.

``env X=1 timeout 5 xargs rm``, ``bash -c 'rm x'``, ``find . -exec rm {} +``: each of them runs
``rm``, and that is what has to be judged. A wrapper is only seen through when every option it is
given is known here; otherwise, and for anything that the line does not show (code in another
language, a program that reads its commands from a pipe), the act is *opaque* and says why.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tightloop.agent.approval.bash_line import (
    MAX_DEPTH,
    Assignment,
    Redirect,
    SimpleCommand,
    parse_line,
)
from tightloop.agent.approval.bash_words import UNKNOWN, NotUnderstood, Word, known
from tightloop.agent.approval.reading import small_language_runs
from tightloop.agent.approval.wrappers import (
    BUILTINS,
    SHELLS,
    WRAPPERS,
    Wrapper,
    hidden_code,
    is_from_input,
)

_SYSTEM_PLACES = ("", "/bin", "/usr/bin", "/usr/local/bin", "/sbin", "/usr/sbin")


@dataclass(frozen=True, slots=True)
class Act:
    """One program or builtin with its words, the first being its name; or only assignments and
    redirections. ``opaque`` says what else is run that cannot be seen; empty when nothing is.

    ``wrappers`` are the names that it was seen through, outermost first.
    """

    words: tuple[Word, ...] = ()
    assignments: tuple[Assignment, ...] = ()
    redirects: tuple[Redirect, ...] = ()
    opaque: str = ""
    wrappers: tuple[str, ...] = ()

    @property
    def program(self) -> str | None:
        """The name as written, None when it is not known or there is none."""
        return self.words[0].text if self.words else None

    @property
    def name(self) -> str:
        """The program's name without its directory; empty when it is not known."""
        return posixpath.basename(self.program or "")

    def plain(self) -> str:
        """As text for a person."""
        return " ".join(word.raw if word.text is None else word.text for word in self.words)


def acts_of_line(text: str, depth: int = 0) -> list[Act]:
    """What bash runs for ``text``. Raises ``NotUnderstood``."""
    return [act for command in parse_line(text, depth) for act in acts_of(command, depth)]


def acts_of_argv(argv: Sequence[str]) -> list[Act]:
    """What runs when a program is started with these arguments and no shell."""
    return acts_of(SimpleCommand(tuple(known(word) for word in argv)), 0)


def acts_of(command: SimpleCommand, depth: int) -> list[Act]:
    """What one simple command comes to."""
    act = Act(command.words, command.assignments, command.redirects)
    return _seen_through(act, depth)


def _seen_through(act: Act, depth: int) -> list[Act]:
    if depth > MAX_DEPTH:
        raise NotUnderstood(f"more than {MAX_DEPTH} wrappers")
    if not act.words:
        return [act]
    if act.program is None:
        return [replace(act, opaque="a program whose name is only known when it runs")]
    name = act.name
    acts = _inside(act, name, depth)
    if posixpath.dirname(act.program) in _SYSTEM_PLACES or acts == [act]:
        return acts
    return [act, *acts]  # a file that only has the name of a wrapper may do anything


def _inside(act: Act, name: str, depth: int) -> list[Act]:
    if reason := BUILTINS.get(name, ""):
        return _builtin(act, reason, depth)
    if name in SHELLS:
        return _shell(act, depth)
    if name == "find":
        return _find(act, depth)
    if name == "command" and len(act.words) > 1 and act.words[1].text in ("-v", "-V"):
        return [act]
    if wrapper := WRAPPERS.get(name):
        return _wrapped(act, wrapper, depth)
    if small_language_runs(act.words):
        return [replace(act, opaque=f"a program for {name!r} that may run commands")]
    if reason := hidden_code(act.words):
        return [replace(act, opaque=reason)]
    return [act]


def _builtin(act: Act, reason: str, depth: int) -> list[Act]:
    if act.name == "eval" and all(word.text is not None for word in act.words):
        text = " ".join(word.text or "" for word in act.words[1:])
        inner = acts_of_line(text, depth + 1)
        return [_within(act, one) for one in inner] or [replace(act, words=())]
    return [replace(act, opaque=reason)]


def _wrapped(act: Act, wrapper: Wrapper, depth: int) -> list[Act]:
    """A program that runs the one named by its arguments."""
    rest, assignments = wrapper.rest(act.words[1:])
    if rest is None:
        return [replace(act, opaque=f"options of {act.name!r} that are not known here")]
    if not rest:
        return [act]
    inner = Act(rest, (*act.assignments, *assignments), act.redirects)
    return [_within(act, one) for one in _seen_through(inner, depth + 1)]


def _within(outer: Act, inner: Act) -> Act:
    """An act of a wrapper, with what the wrapper adds to it."""
    redirects = [
        one for one in outer.redirects if not any(one is other for other in inner.redirects)
    ]
    return replace(
        inner,
        assignments=tuple(dict.fromkeys((*outer.assignments, *inner.assignments))),
        redirects=(*redirects, *inner.redirects),
        wrappers=(outer.name, *inner.wrappers),
    )


_SHELL_LETTERS = frozenset("ceul")


def _shell(act: Act, depth: int) -> list[Act]:
    """``bash -c TEXT`` is what TEXT is; a script from a file is a program of its own."""
    is_seen = SHELLS[act.name]
    has_text = False
    rest: list[Word] = list(act.words[1:])
    while rest and (rest[0].can_be_option or rest[0].text is None):
        text = rest.pop(0).text
        if text is None or not is_seen or not set(text[1:]) <= _SHELL_LETTERS or len(text) < 2:
            return [replace(act, opaque=f"options of {act.name!r} that are not known here")]
        has_text = has_text or "c" in text
    if has_text:
        if not rest or rest[0].text is None:
            return [replace(act, opaque=f"what {act.name!r} runs is only known when it runs")]
        inner = acts_of_line(rest[0].text, depth + 1)
        return [_within(act, one) for one in inner] or [replace(act, words=())]
    script = rest[0].text if rest else None
    if script is not None and not script.startswith("+") and not is_from_input(script):
        return [act]
    if rest:
        return [replace(act, opaque=f"what {act.name!r} is told to run")]
    body = next((one.body for one in act.redirects if one.body is not None), None)
    if is_seen and body is not None and body.text is not None:
        return [_within(act, one) for one in acts_of_line(body.text, depth + 1)] or [act]
    return [replace(act, opaque=f"what {act.name!r} reads from its input")]


_FIND_RUNS = frozenset({"-exec", "-execdir", "-ok", "-okdir"})


def _find(act: Act, depth: int) -> list[Act]:
    """``find`` without its commands, and these with an unknown word for each ``{}``."""
    kept: list[Word] = []
    inner: list[Act] = []
    words = list(act.words)
    while words:
        word = words.pop(0)
        if word.text is None and word.can_be_option:
            return [replace(act, opaque="expressions of 'find' that are only known when it runs")]
        if word.text not in _FIND_RUNS:
            kept.append(word)
            continue
        command: list[Word] = []
        while words and not _ends_command(words[0].text, command):
            command.append(words.pop(0))
        if not words or not command:
            return [replace(act, opaque="a command of 'find' without its end")]
        words.pop(0)
        given = tuple(_filled_in(one) for one in command)
        run = Act(given, act.assignments, wrappers=("find",))
        inner += [_within(act, one) for one in _seen_through(run, depth + 1)]
    return [replace(act, words=tuple(kept)), *inner]


def _ends_command(text: str | None, command: Sequence[Word]) -> bool:
    return text == ";" or (text == "+" and bool(command) and command[-1].text == "{}")


def _filled_in(word: Word) -> Word:
    if word.text is None or "{}" not in word.text:
        return word
    return replace(UNKNOWN, raw=word.raw, is_single=True, start=word.text.split("{}")[0])
