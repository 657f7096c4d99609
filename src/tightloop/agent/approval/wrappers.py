"""Programs that run other programs, and how to find which.

A table per kind. ``WRAPPERS`` run what their arguments name and do nothing else of note; those with
an effect of their own (``sudo``, ``ssh``, ``docker exec``) are not among them: they are programs that
need a rule for themselves. Sources: the manuals of coreutils, findutils, util-linux and bash.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tightloop.agent.approval.bash_line import Assignment
from tightloop.agent.approval.bash_words import UNKNOWN, Word, known

_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Wrapper:
    """``flags`` are options without a value, ``valued`` those with one; ``num_before`` arguments
    stand between the options and the command.

    ``has_assignments``: ``NAME=VALUE`` may stand there. ``adds``: unknown words are added to the
    command's. ``replacing`` are options whose value stands for unknown text in the command.
    """

    flags: frozenset[str] = frozenset()
    valued: frozenset[str] = frozenset()
    num_before: int = 0
    has_assignments: bool = False
    adds: bool = False
    replacing: frozenset[str] = frozenset()
    number: re.Pattern[str] | None = field(default=None, compare=False)

    def rest(self, words: Sequence[Word]) -> tuple[tuple[Word, ...] | None, tuple[Assignment, ...]]:
        """The command's words and assignments; None when an option is not known."""
        left = list(words)
        replaced = ""
        while left and (left[0].can_be_option or left[0].text is None):
            text = left.pop(0).text
            if text is None:
                return None, ()
            if text == "--":
                break
            used = self._option(text, left)
            if used is None:
                return None, ()
            replaced = used or replaced
        assignments: list[Assignment] = []
        while self.has_assignments and left and (found := _assigned(left[0])):
            assignments.append(found)
            left.pop(0)
        if self.has_assignments and left and "=" in (left[0].text or ""):
            return None, ()  # a variable with an odd name, such as a function for bash
        if any(word.text is None or not word.is_single for word in left[: self.num_before]):
            return None, ()
        left = left[self.num_before :]
        if self.adds and left:
            left = [_with_unknown(word, replaced) for word in left]
            if not replaced:
                left.append(UNKNOWN)
        return tuple(left), tuple(assignments)

    def _option(self, text: str, left: list[Word]) -> str | None:
        """Takes the option and its value; what it replaces in the command. None: not known."""
        name, has_value, value = text.partition("=")
        if text in self.flags or (self.number is not None and self.number.fullmatch(text)):
            return ""
        if name in self.valued and has_value and name.startswith("--"):
            return value if name in self.replacing else ""
        if text in self.valued:
            if not left or (taken := left.pop(0).text) is None:
                return None
            return taken if text in self.replacing else ""
        if (
            len(text) > 1
            and text[1] != "-"
            and all(f"-{letter}" in self.flags for letter in text[1:])
        ):
            return ""
        short = text[:2]
        if short in self.valued and not text.startswith("--"):
            return text[2:] if short in self.replacing else ""
        return None


def _assigned(word: Word) -> Assignment | None:
    match = _ASSIGNED.fullmatch(word.start if word.text is None else word.text)
    if match is None:
        return None
    return Assignment(match[1], UNKNOWN if word.text is None else known(match[2]))


def _with_unknown(word: Word, replaced: str) -> Word:
    if not replaced or (word.text is not None and replaced not in word.text):
        return word
    return Word(word.raw, None, True, True, "", False)


def _of(*names: str) -> frozenset[str]:
    return frozenset(names)


_XARGS = Wrapper(
    flags=_of("-0", "--null", "-r", "--no-run-if-empty", "-t", "--verbose", "-x", "--exit"),
    valued=_of(
        "-n", "--max-args", "-L", "--max-lines", "-P", "--max-procs", "-d", "--delimiter",
        "-s", "--max-chars", "-I", "-a", "--arg-file", "-E",
    ),
    adds=True,
    replacing=_of("-I"),
)  # fmt: skip

WRAPPERS = {
    "env": Wrapper(
        flags=_of("-i", "--ignore-environment", "-"), valued=_of("-u", "--unset"),
        has_assignments=True,
    ),
    "nice": Wrapper(valued=_of("-n", "--adjustment"), number=re.compile(r"-\d+")),
    "ionice": Wrapper(flags=_of("-t"), valued=_of("-c", "-n")),
    "nohup": Wrapper(),
    "setsid": Wrapper(flags=_of("-f", "--fork", "-w", "--wait", "-c", "--ctty")),
    "stdbuf": Wrapper(valued=_of("-i", "-o", "-e", "--input", "--output", "--error")),
    "timeout": Wrapper(
        flags=_of("--preserve-status", "--foreground", "-v", "--verbose"),
        valued=_of("-k", "--kill-after", "-s", "--signal"),
        num_before=1,
    ),
    "time": Wrapper(flags=_of("-p", "-v")),
    "command": Wrapper(flags=_of("-p")),
    "builtin": Wrapper(),
    "exec": Wrapper(flags=_of("-c", "-l"), valued=_of("-a")),
    "xargs": _XARGS,
    "busybox": Wrapper(),
    "toybox": Wrapper(),
}  # fmt: skip
"""Seen through: the command that they run is judged, not they."""

SHELLS = dict.fromkeys(("bash", "sh", "dash"), True) | dict.fromkeys(
    ("zsh", "ksh", "mksh", "fish", "csh", "tcsh", "ash", "rbash", "pwsh", "powershell", "cmd"),
    False,
)
"""By name: whether its language is near enough to bash's for a text to be read as bash."""

_RUNS_TEXT = "commands that are only known when it runs"
_CHANGES_SHELL = "a change of what later words mean"
BUILTINS = {
    "eval": _RUNS_TEXT,
    "trap": _RUNS_TEXT,
    "source": "a script that is read into the shell",
    ".": "a script that is read into the shell",
    "mapfile": _RUNS_TEXT,
    "readarray": _RUNS_TEXT,
    "complete": _RUNS_TEXT,
    "compgen": _RUNS_TEXT,
    "bind": _RUNS_TEXT,
    "fc": _RUNS_TEXT,
    "let": "arithmetic",
    "coproc": _RUNS_TEXT,
    "alias": _CHANGES_SHELL,
    "unalias": _CHANGES_SHELL,
    "shopt": _CHANGES_SHELL,
    "set": _CHANGES_SHELL,
    "enable": _CHANGES_SHELL,
    "hash": _CHANGES_SHELL,
    "declare": _CHANGES_SHELL,
    "typeset": _CHANGES_SHELL,
    "local": _CHANGES_SHELL,
    "readonly": _CHANGES_SHELL,
    "export": _CHANGES_SHELL,
    "unset": _CHANGES_SHELL,
    "read": _CHANGES_SHELL,
    "getopts": _CHANGES_SHELL,
}
"""Builtins that run text, or make later words mean something else, by name with the reason."""

_INTERPRETERS = re.compile(
    r"(?:python|pypy)[\d.]*|perl[\d.]*|ruby[\d.]*|node|nodejs|deno|bun|php[\d.]*|lua[\d.]*|luajit"
    r"|tclsh[\d.]*|wish|Rscript|R|julia|ghci|groovy|osascript|guile|sqlite3|psql|mysql|gdb|ed|ex"
)
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*")
_PYTHON_FLAGS = frozenset("bBdEIOPqsSuvx")
_CODE_MODULES = frozenset({"timeit", "code", "pdb"})
_QUIET_OPTIONS = frozenset({"--version", "-V", "--help", "-h", "-v"})


def is_interpreter(name: str) -> bool:
    """Whether programs of this name run code of another language."""
    return _INTERPRETERS.fullmatch(name) is not None


def is_from_input(path: str) -> bool:
    """Whether a program's file is no file, but what it is fed with."""
    return path.startswith(("/dev/", "/proc/")) or path == "-"


def hidden_code(words: Sequence[Word]) -> str:
    """Why an interpreter runs code that stands on the line or comes from its input; else empty.

    Code in a file is the program's own affair, as it is for any program.
    """
    name = (words[0].text or "").rpartition("/")[2]
    if not is_interpreter(name):
        return ""
    left = list(words[1:])
    while left:
        text = left.pop(0).text
        if text is None:
            return f"arguments of {name!r} that are only known when it runs"
        if text in _QUIET_OPTIONS:
            return ""
        if not text.startswith("-"):
            is_fed = is_from_input(text) or text == "eval"
            return f"what {name!r} is fed with" if is_fed else ""
        if _PYTHON.fullmatch(name) is None:
            return f"code, or options of {name!r} that are not known here"
        if text in ("-W", "-X"):
            left = left[1:]
        elif text.startswith("-m"):
            module = text[2:] or (left[0].text if left else None)
            is_code = module is None or module in _CODE_MODULES
            return f"code for {name!r}" if is_code else ""
        elif not text.startswith(("-W", "-X")) and not set(text[1:]) <= _PYTHON_FLAGS:
            return f"code, or options of {name!r} that are not known here"
    return f"what {name!r} reads from its input"
