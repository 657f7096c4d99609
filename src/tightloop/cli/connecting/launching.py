"""The client as a program: found, given its variables, and put in this process's place."""

import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from tightloop.cli.connecting.interface import Client, ConnectError, Recipe, Setting


def find_program(client: Client, given: Path | None, words: Sequence[str]) -> str:
    """The path of the executable. Raises ``ConnectError`` that says how to install it.

    ``given`` is where the person says that it is. A client without a program of its own is run by
    the first of the ``words``.
    """
    name = str(given) if given is not None else client.program or words[0]
    found = shutil.which(name)
    if found is not None:
        return found
    if given is not None:
        raise ConnectError(f"--client: {given} is not a program that can be started")
    if client.program is None:
        raise ConnectError(f"{name} is not on PATH")
    raise ConnectError(
        f"{name} is not on PATH; install it with '{client.install}', or say where it is"
        " with --client PATH"
    )


def environment_for(
    settings: Sequence[Setting], recipe: Recipe, environment: Mapping[str, str]
) -> dict[str, str]:
    """The client's variables: those there are, without ``recipe.unset``, and the settings."""
    kept = {name: value for name, value in environment.items() if name not in recipe.unset}
    return kept | {setting.name: setting.among(environment) for setting in settings}


def become(program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """This process is the client from now on: its streams, terminal, signals and exit status.

    Nothing stands in between, so nothing needs to be passed on. Raises ``ConnectError`` when the
    file is no program after all.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores it, and what is ignored stays ignored in the new program.
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execve(program, [program, *arguments], dict(environment))
    except OSError as error:
        signal.signal(signal.SIGPIPE, before)  # this process goes on
        raise ConnectError(f"cannot start {program}: {error.strerror or error}") from error
