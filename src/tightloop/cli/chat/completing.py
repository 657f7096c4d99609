"""What Tab offers: commands behind a slash, paths of the repository behind an at sign."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tightloop.agent.terminal.editor import Completion
from tightloop.cli.chat.commands import Command

if TYPE_CHECKING:
    import asyncio

MAX_PATHS = 50_000
MAX_OFFERED = 50
MAX_LISTED_BYTES = 8 << 20


class Completing:
    """``paths`` are those of the repository once somebody has listed them."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self.paths: Sequence[str] = ()
        self._commands = commands

    def __call__(self, text: str, cursor: int) -> list[Completion]:
        """What the word before the cursor can become."""
        before = text[:cursor]
        if before.startswith("/") and before[1:].isalpha() | (before == "/"):
            return [
                Completion(f"/{one.name}", 0, one.summary, ends=not one.argument)
                for one in self._commands
                if one.name.startswith(before[1:])
            ]
        start = max(before.rfind(" "), before.rfind("\n")) + 1
        word = before[start:]
        return self._paths(word[1:], start) if word.startswith("@") and len(word) > 1 else []

    def _paths(self, typed: str, start: int) -> list[Completion]:
        """Paths that begin so, then those with such a name, then those that hold it anywhere."""
        wanted = typed.lower()
        ranked: list[tuple[int, int, str]] = []
        for path in self.paths:
            lower = path.lower()
            if wanted in lower:
                name = lower.rpartition("/")[2]
                rank = 0 if lower.startswith(wanted) else 1 if name.startswith(wanted) else 2
                ranked.append((rank, len(path), path))
        ranked.sort()
        return [Completion(f"@{path}", start) for _, _, path in ranked[:MAX_OFFERED]]


async def listed_paths(directory: Path) -> list[str]:
    """The files of a repository that git does not ignore; none where git cannot say."""
    import asyncio

    words = ["git", "-C", str(directory), "ls-files", "-co", "--exclude-standard", "-z"]
    none = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=none, stdout=asyncio.subprocess.PIPE, stderr=none
        )
    except OSError:
        return []
    assert process.stdout is not None, "asked for"
    try:
        data = await _read(process.stdout)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    names = data.decode("utf-8", "replace").split("\0")
    return [name for name in names if name][:MAX_PATHS]


async def _read(stream: "asyncio.StreamReader") -> bytes:
    """All of it, or the names that are whole in the first megabytes."""
    pieces: list[bytes] = []
    num_bytes = 0
    while num_bytes < MAX_LISTED_BYTES and (piece := await stream.read(1 << 16)):
        pieces.append(piece)
        num_bytes += len(piece)
    return b"".join(pieces).rpartition(b"\0")[0]
