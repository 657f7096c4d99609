"""The JSONL log of a run: one object a line, readable while it is written.

Every line has ``v`` (schema version), ``kind``, ``t_ns`` (monotonic clock) and the fields of its
kind; the first line, ``run.started``, also carries the wall time as a label. Lines are written
whole and flushed, so a killed process leaves at most one damaged last line, which readers drop.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tightloop.trace.clock import Clock, MonotonicClock, wall_label

SCHEMA_VERSION = 1


def state_directory() -> Path:
    """``$TIGHTLOOP_STATE_DIR``, else ``$XDG_STATE_HOME/tightloop``, else under the home directory."""
    own = os.environ.get("TIGHTLOOP_STATE_DIR")
    if own:
        return Path(own)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "tightloop"


def new_log_path(directory: Path, verb: str) -> Path:
    """A fresh name under ``directory/runs``: date, verb and a random part."""
    stamp = wall_label()[:19].replace(":", "").replace("-", "")
    return directory / "runs" / f"{stamp}-{verb}-{uuid.uuid4().hex[:6]}.jsonl"


class RunLog:
    """Appends lines to one file. Not for several threads. ``redact`` gets every text in a line, to
    make unreadable in it what no log may hold.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock | None = None,
        redact: Callable[[str], str] | None = None,
        **labels: Any,
    ) -> None:
        self.path = path
        self._redact = redact
        self._clock = clock or MonotonicClock()
        self._encoder = msgspec.json.Encoder(enc_hook=str)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        try:
            self.write("run.started", wall=wall_label(), pid=os.getpid(), **labels)
        except OSError:
            self._file.close()
            raise

    def write(self, kind: str, **fields: Any) -> None:
        """Append one line; structs and dataclasses in ``fields`` become objects."""
        line = {"v": SCHEMA_VERSION, "kind": kind, "t_ns": self._clock.now_ns(), **fields}
        if self._redact is not None:
            line = _changed(msgspec.to_builtins(line, enc_hook=str), self._redact)
        self._file.write(self._encoder.encode(line) + b"\n")

    def close(self) -> None:
        """Write ``run.ended`` and close. May be called twice."""
        if not self._file.closed:
            try:
                self.write("run.ended")
            finally:
                self._file.close()


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text in it changed, but for keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _changed(one, change) for key, one in value.items()}
    return [_changed(one, change) for one in value] if isinstance(value, list) else value


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log in order; a damaged last line is dropped, any other raises ValueError."""
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            decoded = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            if number == len(lines):
                return
            raise ValueError(f"{path}:{number}: not a log line: {error}") from error
        if not isinstance(decoded, dict):
            raise ValueError(f"{path}:{number}: not a log line: {line[:40]!r}")
        yield decoded
