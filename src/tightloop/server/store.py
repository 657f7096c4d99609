"""Responses on disk, so that a killed process loses none that it called completed.

SQLite in WAL mode with ``synchronous=NORMAL``: a commit is in the operating system's hands when
``save`` returns, so it survives ``kill -9`` of this process at any later instant. (A power cut can
lose the last commits but never corrupts the file: https://sqlite.org/pragma.html#pragma_synchronous)

One thread owns the connection; every method is awaited on the event loop and runs there in order.
Rows hold wire JSON, not this program's objects, so that the file outlives its code.
"""

import asyncio
import fcntl
import os
import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from tightloop.server.store_schema import SCHEMA_VERSION, migrate, transaction, version_of

T = TypeVar("T")

BUSY_TIMEOUT_MS = 5000

MAX_EVENTS_BYTES = 8 << 20
"""Of one response, before compression; longer streams are not kept beyond the process."""

CHAIN = """
WITH RECURSIVE chain(id, parent_id, input, output, usage, body, depth) AS (
    SELECT id, parent_id, input, output, usage, body, 0 FROM responses WHERE id = ?
    UNION ALL
    SELECT r.id, r.parent_id, r.input, r.output, r.usage, r.body, depth + 1
    FROM responses r JOIN chain ON r.id = chain.parent_id
)
SELECT id, parent_id, input, output, usage, body FROM chain ORDER BY depth DESC
"""


class StoreError(Exception):
    """The store cannot be used; the text names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class Row:
    """One response as it lies on disk: JSON bytes of its new input items, output items, usage.

    ``body`` is the final Response object, or None for a row that exists only because a stored
    descendant needs its items: such a row can be neither fetched nor named as a parent.
    """

    id: str
    parent_id: str | None
    input: bytes
    output: bytes
    usage: bytes
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Head:
    """Where a conversation ends now: the id of the row with its newest items, None if empty."""

    conversation_id: str
    row_id: str | None


@dataclass(frozen=True, slots=True)
class ConversationRow:
    """A conversation as it lies on disk; ``metadata`` is a JSON object of strings."""

    id: str
    created_at: int
    metadata: bytes
    head_id: str | None


class Store:
    """The SQLite file. ``open`` before use; ``close`` waits for what was begun.

    One process at a time has it: what is in memory (the ends of conversations, deletions) is taken
    to be what the file says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tightloop-store")
        self._connection: sqlite3.Connection | None = None
        self._lock: IO[str] | None = None

    async def open(self) -> None:
        """Create or open the file, readable by its owner only. Raises ``StoreError``."""
        await self._run(self._open)

    async def save(
        self,
        rows: Sequence[Row],
        *,
        events: Mapping[str, Sequence[bytes]] | None = None,
        head: Head | None = None,
    ) -> None:
        """Commit the rows in one transaction; those that exist already stay as they are,
        except that a body and events are added to a row that had none. Raises ``StoreError``.

        ``events``: by response id, the JSON texts of its stream, none of which holds a newline.
        They are dropped when they are longer than ``MAX_EVENTS_BYTES``. ``head`` moves with the
        same commit.
        """
        await self._run(lambda: self._save(rows, events or {}, head))

    async def events(self, response_id: str) -> list[bytes] | None:
        """The events of a response's stream as saved; None if it was deleted or none were kept."""
        return await self._run(lambda: self._events(response_id))

    async def chain(self, response_id: str) -> list[Row]:
        """The response and its ancestors, root first; empty when the response is unknown."""
        return await self._run(lambda: self._rows(CHAIN, response_id))

    async def get(self, response_id: str) -> Row | None:
        """One response, or None."""
        query = "SELECT id, parent_id, input, output, usage, body FROM responses WHERE id = ?"
        rows = await self._run(lambda: self._rows(query, response_id))
        return rows[0] if rows else None

    async def find(self, prefix: str) -> Row | None:
        """The first response whose id begins with ``prefix`` (ASCII), or None."""
        query = (
            "SELECT id, parent_id, input, output, usage, body FROM responses"
            " WHERE id >= ? AND id < ? AND body IS NOT NULL ORDER BY id LIMIT 1"
        )
        rows = await self._run(lambda: self._rows(query, prefix, prefix + "\x7f"))
        return rows[0] if rows else None

    async def delete(self, response_id: str) -> bool:
        """Whether there was such a response; it can no longer be fetched or continued.

        Its items go too unless a stored descendant still needs them; then they go with the last
        of those.
        """
        return await self._run(lambda: self._delete(response_id))

    async def add_conversation(self, row: ConversationRow) -> None:
        """Commit a new conversation. Raises ``StoreError``."""
        await self._run(lambda: self._add_conversation(row))

    async def conversation(self, conversation_id: str) -> ConversationRow | None:
        """One conversation, or None."""
        return await self._run(lambda: self._conversation(conversation_id))

    async def set_metadata(self, conversation_id: str, metadata: bytes) -> None:
        """Commit new metadata; nothing happens when there is no such conversation."""
        query = "UPDATE conversations SET metadata = ? WHERE id = ?"
        await self._run(lambda: self._db().execute(query, (metadata, conversation_id)))

    async def delete_conversation(self, conversation_id: str) -> None:
        """The conversation is gone; of its items those stay that a response still needs."""
        await self._run(lambda: self._delete_conversation(conversation_id))

    async def close(self) -> None:
        """Finish what was begun and close the file. May be called twice."""
        if self._connection is not None:
            await self._run(self._close)
        self._thread.shutdown()

    async def _run(self, job: Callable[[], T]) -> T:
        try:
            # A caller that is cancelled must not take back a job that others may have seen coming.
            running = asyncio.get_running_loop().run_in_executor(self._thread, job)
            return await asyncio.shield(running)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"the response store {self.path} failed: {error};"
                " check free space and permissions, or give another --state-dir"
            ) from error

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise StoreError(
                f"{self.path.parent} is not a folder; give another --state-dir"
            ) from None
        self._lock = _lock(self.path)
        try:
            self._connection = self._connect()
        except BaseException:
            self._unlock()
            raise

    def _connect(self) -> sqlite3.Connection:
        # Conversations are private: create the file with its mode instead of changing it later.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        version = version_of(connection)
        if version > SCHEMA_VERSION:
            connection.close()
            raise StoreError(
                f"{self.path} has schema version {version}, this program knows {SCHEMA_VERSION};"
                " use the newer tightloop, or give another --state-dir"
            )
        migrate(connection)
        return connection

    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"{self.path} is not open")
        return self._connection

    def _save(
        self, rows: Sequence[Row], events: Mapping[str, Sequence[bytes]], head: Head | None
    ) -> None:
        # Compressed here, on the store's thread, so that the event loop never waits for it.
        packed = {response_id: _pack(stream) for response_id, stream in events.items()}
        values = [
            (r.id, r.parent_id, r.input, r.output, r.usage, r.body, packed.get(r.id)) for r in rows
        ]
        with transaction(self._db()) as db:
            db.executemany(
                "INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE"
                " SET body = coalesce(body, excluded.body),"
                " events = coalesce(events, excluded.events)",
                values,
            )
            if head is not None:
                _move_head(db, head)

    def _events(self, response_id: str) -> list[bytes] | None:
        query = "SELECT events FROM responses WHERE id = ? AND body IS NOT NULL"
        found = self._db().execute(query, (response_id,)).fetchone()
        return None if found is None or found[0] is None else zlib.decompress(found[0]).split(b"\n")

    def _rows(self, query: str, *names: str) -> list[Row]:
        return [Row(*values) for values in self._db().execute(query, names)]

    def _delete(self, response_id: str) -> bool:
        with transaction(self._db()) as db:
            hidden = db.execute(
                "UPDATE responses SET body = NULL, events = NULL WHERE id = ? AND body IS NOT NULL",
                (response_id,),
            )
            if not hidden.rowcount:
                return False
            _prune(db, response_id)
        return True

    def _add_conversation(self, row: ConversationRow) -> None:
        values = (row.id, row.created_at, row.metadata, row.head_id)
        self._db().execute("INSERT INTO conversations VALUES (?, ?, ?, ?)", values)

    def _conversation(self, conversation_id: str) -> ConversationRow | None:
        query = "SELECT id, created_at, metadata, head_id FROM conversations WHERE id = ?"
        found = self._db().execute(query, (conversation_id,)).fetchone()
        return None if found is None else ConversationRow(*found)

    def _delete_conversation(self, conversation_id: str) -> None:
        with transaction(self._db()) as db:
            _move_head(db, Head(conversation_id, None))
            db.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,))

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _pack(events: Sequence[bytes]) -> bytes | None:
    """The events in one compressed piece; level 1, because events are text that repeats itself."""
    if not events or sum(map(len, events)) + len(events) > MAX_EVENTS_BYTES:
        return None
    return zlib.compress(b"\n".join(events), 1)


def _lock(path: Path) -> IO[str]:
    """The lock of a store, held until it is closed or the process ends, however it ends."""
    lock = path.with_name(f"{path.name}.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read(20).strip() or "unknown"
        lock.close()
        raise StoreError(
            f"{path} is in use by another server (process {holder});"
            " end that one, or give this one another --state-dir"
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _move_head(db: sqlite3.Connection, head: Head) -> None:
    """Point the conversation at its new last row; rows that nothing needs any more go."""
    query = "SELECT head_id FROM conversations WHERE id = ?"
    found = db.execute(query, (head.conversation_id,)).fetchone()
    if found is None:
        return
    db.execute(
        "UPDATE conversations SET head_id = ? WHERE id = ?", (head.row_id, head.conversation_id)
    )
    if found[0] is not None:
        _prune(db, found[0])


def _prune(db: sqlite3.Connection, row_id: str) -> None:
    """Delete the row and its ancestors as far up as nothing needs them.

    A row is needed when it can be fetched (it has a body), has a child, or ends a conversation.
    """
    doomed: str | None = row_id
    while doomed is not None:
        gone = db.execute(
            "DELETE FROM responses WHERE id = ? AND body IS NULL"
            " AND NOT EXISTS (SELECT 1 FROM responses WHERE parent_id = ?)"
            " AND NOT EXISTS (SELECT 1 FROM conversations WHERE head_id = ?) RETURNING parent_id",
            (doomed, doomed, doomed),
        ).fetchall()
        doomed = gone[0][0] if gone else None
