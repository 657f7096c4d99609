"""What a client's module must say, and the words it says it in.

A client is described, not programmed: which files it reads, which variables, which command starts
it. Printing, writing and running are done once for all of them, elsewhere.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

DEFAULT_CONTEXT_WINDOW = 32768
"""Tokens, for a model whose server was not asked."""

NO_KEY = "unused"
"""Sent as the key when there is none: most clients refuse to start without one."""


@dataclass(frozen=True, slots=True)
class Target:
    """The server to be used, and how.

    ``url`` is the API's root and ends in ``/v1``; ``key_variable`` names the environment variable
    that holds the API key; ``otel_url`` is the root of an OTLP/HTTP collector, None for no export.
    """

    url: str
    model: str
    key_variable: str
    context_window: int = DEFAULT_CONTEXT_WINDOW
    otel_url: str | None = None

    @property
    def root(self) -> str:
        """The server without the API's version, as Anthropic clients want it."""
        return self.url.removesuffix("/v1")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file that the client reads. ``place`` is where its users keep it, for a person to read."""

    name: str
    place: str
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Setting:
    """An environment variable: its ``value``, or the API key that the variable ``key_from`` holds.

    A key is never printed or written: what is shown refers to the variable.
    """

    name: str
    value: str | None
    why: str
    key_from: str = ""

    def in_shell(self) -> str:
        """The line for a shell."""
        if self.value is None:
            return f'export {self.name}="${{{self.key_from}:-{NO_KEY}}}"'
        return f"export {self.name}={shlex.quote(self.value)}"

    def among(self, environment: Mapping[str, str]) -> str:
        """The value that the client gets, given the variables there are."""
        if self.value is None:
            return environment.get(self.key_from) or NO_KEY
        return self.value


def key_setting(name: str, target: Target, why: str) -> Setting:
    """``name`` gets the API key, or a word in its place when there is none."""
    return Setting(name, None, why, target.key_variable)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that connects one client. ``example`` are words to try it with.

    ``unset`` are variables that would make the client talk to somebody else.
    """

    files: tuple[ConfigFile, ...]
    settings: tuple[Setting, ...]
    example: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unset: tuple[str, ...] = ()


class ConnectError(Exception):
    """The client cannot be connected; the text is one line that says what to do."""


class Client(Protocol):
    """A client that can be connected."""

    name: str
    title: str
    program: str | None
    """The executable looked for on PATH; None when the words after ``--`` name the program."""
    install: str
    """The command that installs it."""

    def recipe(self, target: Target) -> Recipe:
        """What to set up."""

    def home(self, directory: Path) -> Sequence[Setting]:
        """The variables that make the client keep everything of its own under ``directory``.

        Files of the recipe are in ``directory`` under their names.
        """

    def arguments(self, target: Target, words: Sequence[str]) -> list[str]:
        """The program's arguments for ``words``, what the person wants it to do."""
