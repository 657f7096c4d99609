"""What each server listed the last time, so that the next conversation need not wait for it.

One small file per server. It holds what the server said about itself, and counts only as long as
its table in the configuration is the same. The order and wording of the last list are kept while
the new one says the same, so the bytes of the prompt, and with them the server's prefix cache, stay.
"""

import hashlib
import os
from pathlib import Path

import msgspec

from tightloop.agent.tools.mcp.configuration import McpTable
from tightloop.agent.tools.mcp.server import Listed

MAX_FILE_BYTES = 4 << 20


class _Kept(msgspec.Struct, frozen=True):
    table: str
    tools: list[Listed]


_decoder = msgspec.json.Decoder(_Kept)


class Catalogue:
    """The lists kept in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, name: str, table: McpTable) -> list[Listed] | None:
        """What the server listed last under this table; None when that is not known."""
        try:
            data = self._path(name).read_bytes()
            kept = _decoder.decode(data) if len(data) <= MAX_FILE_BYTES else None
        except (OSError, msgspec.MsgspecError, UnicodeError):
            return None
        return kept.tools if kept is not None and kept.table == _digest(table) else None

    def save(self, name: str, table: McpTable, tools: list[Listed]) -> None:
        """Keep a list. Raises OSError."""
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._path(name)
        temporary = path.with_suffix(f".{os.getpid()}.new")
        temporary.write_bytes(msgspec.json.encode(_Kept(_digest(table), tools)))
        os.replace(temporary, path)

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"


def _digest(table: McpTable) -> str:
    """Of all that decides what a server lists. The file holds none of the table's values."""
    listing = msgspec.structs.replace(
        table, trusted=False, enabled=True, start_timeout_s=1.0, call_timeout_s=1.0
    )
    return hashlib.blake2b(msgspec.json.encode(listing), digest_size=16).hexdigest()
