"""What was entered before, kept in a file: one JSON string per line, the newest last."""

import json
import os
from pathlib import Path

MAX_ENTRY_CHARS = 100_000
"""Longer entries are remembered, but not written to the file."""


class History:
    """Entries, oldest first. ``path`` None keeps them in memory only.

    A file that cannot be read or written costs the memory of earlier runs and nothing else;
    ``problem`` says so. Several programs may append to one file at the same time.
    """

    def __init__(self, path: Path | None = None, max_entries: int = 1000) -> None:
        self.problem = ""
        self._path = path
        self._max = max_entries
        self._entries: list[str] | None = None

    @property
    def entries(self) -> list[str]:
        """All of them; the file is read when they are asked for first."""
        if self._entries is None:
            self._entries = self._read()
        return self._entries

    def add(self, text: str) -> None:
        """``text`` was entered; a repetition of the newest entry and white space do not count."""
        entries = self.entries
        if not text.strip() or entries[-1:] == [text]:
            return
        entries.append(text)
        del entries[: -self._max]
        if self._path is not None and len(text) <= MAX_ENTRY_CHARS:
            self._write(self._path, [text], os.O_APPEND)

    def _read(self) -> list[str]:
        if self._path is None:
            return []
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror}"
            return []
        entries = [entry for entry in map(_decoded, lines[-self._max :]) if entry]
        if len(lines) > 2 * self._max:
            self._write(self._path, entries, os.O_TRUNC)
        return entries

    def _write(self, path: Path, entries: list[str], flag: int) -> None:
        data = "".join([json.dumps(entry) + "\n" for entry in entries]).encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flag, 0o600)
            with open(fd, "wb", buffering=0) as file:
                file.write(data)
        except OSError as error:
            self.problem = f"{path}: {error.strerror}"


def _decoded(line: bytes) -> str:
    """An entry; empty for a line that is none, such as half a line after a full disk."""
    try:
        entry = json.loads(line)
    except ValueError:
        return ""
    return entry if isinstance(entry, str) else ""
