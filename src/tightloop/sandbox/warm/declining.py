# ruff: noqa: TID252 - started as a script, without the package above
"""Why a warm run might differ from a cold ``python -m pytest``: then it goes cold.

Nothing here changes the process; each function gives a reason, or nothing.
"""

import os
import re
import sys
from typing import Any

from .stamps import is_below

_OPTIONS = frozenset(
    """
    --tb --maxfail --lf --last-failed --ff --failed-first --nf --new-first --sw --stepwise
    --no-header --no-summary --durations --durations-min --co --collect-only --color --verbose
    --quiet --exitfirst --capture --showlocals --disable-warnings --strict-markers
    --strict-config --deselect --ignore --ignore-glob --cache-clear --runxfail --junitxml
    --show-capture --full-trace --timeout
    """.split()  # noqa: SIM905
)
_SHORT_OPTIONS = re.compile(r"-(?:[qvxsl]+|r[A-Za-z]*|[km].*)")
_CONFIG_FILES = (
    *("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini"),
    *("pyproject.toml", "tox.ini", "setup.cfg"),
)
_UNSURE_CONFIG = re.compile(
    r"""(?:^|[\s"',=\[])(?:-p[\s"',]*(?!no:|[\s"',])|-n[\s"',=\d]|--(?:cov|dist|pdb|trace|forked"""
    r"""|numprocesses|boxed)\b|xdist)""",
    re.MULTILINE,
)
_HEADER = re.compile(r"\[+([^\[\]\"',]+)\]+\s*(?:[#;].*)?$")
_MARKER = "TIGHTLOOP_COMMAND"
_MAX_DIRECTORIES = 500
# These choose what is collected by what earlier runs left behind.
_CHANGEABLE = frozenset(
    """
    --lf --last-failed --ff --failed-first --nf --new-first --sw --stepwise --cache-clear
    """.split()  # noqa: SIM905
)
CONFIG_FILES = frozenset(_CONFIG_FILES)


def unsure(request: dict[str, Any], workspace: str, names: frozenset[str]) -> str:
    """Why a cold run might behave differently; empty when nothing is known.

    ``names`` are those of the resident modules.
    """
    if os.path.realpath(request["cwd"]) != workspace:
        return "another directory than that of the preload"
    return (
        other_interpreter(request["program"], request["is_module"])
        or unknown_argument(request["args"])
        or own_variables(request["environment"])
        or unsure_config(request["cwd"], workspace)
        or shadowing(request["cwd"], names)
    )


def collects_the_same(args: list[str]) -> bool:
    """Whether the arguments mean the same files next time, whatever this run leaves behind."""
    return not any(argument.partition("=")[0] in _CHANGEABLE for argument in args)


def other_interpreter(program: str, is_module: bool) -> str:
    """Whether the command would start another Python, or the same in another environment."""
    python = program
    if not is_module:
        try:
            with open(program, "rb") as file:
                line = file.readline(512)
        except OSError:
            return "no pytest script"
        if not line.startswith(b"#!/") or len(line.split()) != 1:
            return "a pytest that is not a plain script"
        python = os.fsdecode(line[2:].strip())
    same_place = os.path.dirname(python) == os.path.dirname(sys.executable)
    if same_place and os.path.realpath(python) == os.path.realpath(sys.executable):
        return ""
    return f"another interpreter, {python}"


def unknown_argument(args: list[str]) -> str:
    """The first argument that is not known to be harmless; plugins and debuggers are not."""
    for index, argument in enumerate(args):
        if argument.startswith("@"):
            return argument
        if not argument.startswith("-"):
            continue
        if argument == "-p" and args[index + 1 : index + 2] != [] and args[index + 1][:3] == "no:":
            continue
        known = argument.partition("=")[0] in _OPTIONS or argument.startswith("-pno:")
        if not known and not _SHORT_OPTIONS.fullmatch(argument):
            return f"argument {argument}"
    return ""


def own_variables(environment: dict[str, str]) -> str:
    """Variables of this command only: modules may have looked at the old ones on import."""
    return next((f"variable {name}" for name in environment if name != _MARKER), "")


def unsure_config(cwd: str, workspace: str) -> str:
    """A configuration between here and the workspace's top that asks for more than plain runs."""
    directory = os.path.realpath(cwd)
    while is_below(directory, workspace):
        for name in _CONFIG_FILES:
            path = os.path.join(directory, name)
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    found = _UNSURE_CONFIG.search(of_pytest(name, file.read()))
            except OSError:
                continue
            if found:
                return f"{path} says {found[0].strip()!r}"
        if directory == workspace:
            break
        directory = os.path.dirname(directory)
    return ""


def of_pytest(name: str, text: str) -> str:
    """What pytest may read of a configuration file that others share with it."""
    if "pytest" in name:
        return text
    kept, is_wanted = [], name == "pyproject.toml"
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            is_wanted = "pytest" in header[1] or header[1].strip() == "tool"
        elif is_wanted:
            kept.append(line)
    return "\n".join(kept)


def shadowing(cwd: str, names: frozenset[str]) -> str:
    """A project file that a cold run would import instead of a resident module.

    Only directories without ``__init__.py`` can get onto ``sys.path``; two levels are looked at.
    """
    waiting = [(cwd, 0)]
    num_seen = 0
    while waiting:
        directory, depth = waiting.pop()
        num_seen += 1
        if num_seen > _MAX_DIRECTORIES:
            return "too many directories to look through"
        try:
            with os.scandir(directory) as entries:
                listing = list(entries)
        except OSError:
            continue
        if depth and any(entry.name == "__init__.py" for entry in listing):
            continue
        for entry in listing:
            stem, _, extension = entry.name.partition(".")
            if stem in names and (extension in ("py", "so") or extension.endswith(".so")):
                return f"{entry.path} shadows a resident module"
            if entry.name.startswith(".") or not entry.is_dir():
                continue
            if entry.name in names and has_code(entry.path):
                return f"{entry.path} shadows a resident module"
            if depth < 2 and not os.path.exists(os.path.join(entry.path, "pyvenv.cfg")):
                waiting.append((entry.path, depth + 1))
    return ""


def has_code(directory: str) -> bool:
    """Whether a directory is an importable package; without __init__.py it never shadows."""
    return os.path.exists(os.path.join(directory, "__init__.py"))
