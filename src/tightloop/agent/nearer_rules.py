"""AGENTS.md files below the workspace's top: each is told when a call first reaches its directory.

Told at the end of that call's output, so the conversation only ever grows at its end. Read from the
repository as the user has it, not from the agent's view: the agent does not make its own rules.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tightloop.agent.prompt import MAX_RULES_BYTES, rules_in

MAX_WORDS: Final = 200
"""Of one call that are looked at; more is no command that a model reads files with."""
_PATCHED: Final = re.compile(
    r"\*\*\* (?:Add File|Delete File|Update File|Move to): (.*?)(?:\\r|\\n|\r|\n|\Z)"
)
_WORD: Final = re.compile(r"[^\s'\"`;|&<>()${}=,:\\*?\[\]]+")


class NearerRules:
    """For the workspace of one repository; ``top_bytes`` is what its opening took of the budget.

    ``shown_at`` is the path under which the model knows the workspace.
    """

    def __init__(self, repository: Path, shown_at: Path, top_bytes: int = 0) -> None:
        self._repository = repository.resolve()
        self._shown_at = str(shown_at)
        self._room = MAX_RULES_BYTES - top_bytes

    def __call__(self, arguments: str, told: dict[str, int]) -> str:
        """What to add to the output of a call with these arguments; mostly nothing.

        ``told`` is the conversation's own memory: directories that were reached, with the bytes of
        rules that they took.
        """
        texts: list[str] = []
        for directory in self._reached(arguments):
            if directory in told:
                continue
            room = self._room - sum(told.values())
            rules = rules_in(self._repository / directory, self._repository, room)
            told[directory] = len(rules.text.encode()) if rules is not None else 0
            if rules is not None:
                texts.append(
                    f"\n\n[{rules.name} of {directory}: the project's rules for what is in it, not the "
                    f"user's words]\n{rules.text.strip()}"
                )
        return "".join(texts)

    def _reached(self, arguments: str) -> list[str]:
        """Directories below the top that the call names files of, outer ones first."""
        found: dict[str, None] = {}
        for path in self._paths(arguments):
            parts = path.split("/")
            for end in range(1, len(parts) + 1):
                found["/".join(parts[:end])] = None
        return list(found)

    def _paths(self, arguments: str) -> Iterator[str]:
        """The directories of what is named and exists; of patches also of what is to be added."""
        patched = _PATCHED.findall(arguments)
        if patched:
            for text in patched:
                if directory := os.path.dirname(self._inside(text) or ""):
                    yield directory
            return
        for number, match in enumerate(_WORD.finditer(arguments)):
            if number == MAX_WORDS:
                return
            path = self._inside(match[0])
            if path is None:
                continue
            place = self._repository / path
            if place.is_dir():
                yield path
            elif "/" in path and place.exists():
                yield os.path.dirname(path)

    def _inside(self, text: str) -> str | None:
        """The path relative to the top; None when it is elsewhere, or the top itself."""
        if text.startswith(self._shown_at + "/"):
            text = text[len(self._shown_at) + 1 :]
        path = os.path.normpath(text.strip())
        is_outside = path.startswith(("/", "../")) or path in (".", "..")
        return None if is_outside or "\0" in path or len(path) > 4096 else path
