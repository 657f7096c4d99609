"""Conversations on disk that nobody had to have."""

from contextlib import closing
from pathlib import Path

from tightloop.harness.record import Record
from tightloop.protocol.items import user_message


def keep(state_dir: Path, name: str, repository: Path | str = "/somewhere") -> None:
    """One turn is kept under this id."""
    with closing(Record(state_dir, name, str, repository=str(repository), model="m")) as record:
        record.turn()
        record.settled([user_message(f"say {name}")])
