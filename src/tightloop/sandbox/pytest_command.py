"""Recognises a plain pytest command, the only thing a warm test process may run."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tightloop.sandbox.exec_server import find_program
from tightloop.sandbox.interface import Command, Policy
from tightloop.sandbox.warm.confinement import UNCONFINED

ZYGOTE = Path(__file__).parent / "warm" / "__main__.py"
_SHELL_CHARACTERS = frozenset("|&;<>()$`\\*?[]{}~#!\n=")


def zygote_argv(
    environment: Mapping[str, str], policy: Policy, *, is_confined: bool = True
) -> list[str] | None:
    """How to start the warm process with the ``python`` of the PATH; None without one.

    It refuses to run outside of a sandbox, unless it is told that nothing is confined.
    """
    path = {**environment, **policy.environment}.get("PATH", os.defpath)
    try:
        python = find_program("python", path)
    except FileNotFoundError:
        return None
    words = [] if is_confined else [UNCONFINED]
    return [python, str(ZYGOTE), *words, str(policy.workspace)]


def warm_request(
    command: Command, cwd: str, environment: Mapping[str, str]
) -> dict[str, Any] | None:
    """The pytest run that the command is, word for word; None when it is anything else.

    The words must come out the same whether a shell reads them or not: no operators, globs,
    expansions or assignments.
    """
    words = list(command.argv) if command.argv is not None else _plain_words(command.script or "")
    if not words:
        return None
    program = os.path.basename(words[0])
    is_script = command.script is not None
    if words[1:3] == ["-m", "pytest"] and program.startswith("python"):
        rest, is_module = words[3:], True
    elif program == "pytest":
        rest, is_module = words[1:], False
    else:
        return None
    try:
        found = find_program(words[0], environment.get("PATH", os.defpath))
    except FileNotFoundError:
        return None
    return {
        "args": rest,
        "program": os.path.join(cwd, found),
        "is_module": is_module,
        "is_script": is_script,
    }


def _plain_words(script: str) -> list[str]:
    script = script.strip()
    try:
        quoted = shlex.split(script)
    except ValueError:
        return []
    # An operator may stand inside quotes only; comparing with the unquoted split finds it.
    bare = "".join(_outside_quotes(script))
    return [] if _SHELL_CHARACTERS & set(bare) - {"="} or _has_assignment(quoted) else quoted


def _has_assignment(words: list[str]) -> bool:
    return bool(words) and "=" in words[0]


def _outside_quotes(script: str) -> list[str]:
    """The characters a shell would look at; inside double quotes, $ and ` and \\ still count."""
    seen, quote = [], ""
    for character in script:
        if quote:
            if character == quote:
                quote = ""
            elif quote == '"' and character in "$`\\!":
                seen.append(character)
        elif character in "'\"":
            quote = character
        else:
            seen.append(character)
    return seen
