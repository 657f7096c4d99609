"""A command in a terminal, as a person runs it: what it printed, and when the verdict was there."""

import asyncio
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tightloop.trace.clock import now_ns

_VERDICT = re.compile(rb"(?:\d+ (?:passed|failed|errors?|skipped)|no tests ran)[^\n]* in [\d.]+s")


@dataclass(frozen=True, slots=True)
class Printed:
    """Milliseconds from the start of the command until its verdict was printed, and to its end."""

    verdict_ms: float
    ended_ms: float
    exit_code: int
    text: str

    @property
    def summary(self) -> str:
        """What pytest counted: ``17 passed``; empty when it printed no such line."""
        found = _VERDICT.search(self.text.encode())
        return found[0].decode().rpartition(" in ")[0] if found else ""


def in_terminal(argv: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> Printed:
    """Run one command to its end. Raises RuntimeError when it prints no verdict."""
    master, slave = os.openpty()
    try:
        started_ns = now_ns()
        process = subprocess.Popen(
            list(argv), cwd=cwd, env=dict(environment), stdin=subprocess.DEVNULL, stdout=slave, stderr=slave
        )  # fmt: skip
        os.close(slave)
        printed, verdict_ns = bytearray(), 0
        while piece := _read(master):
            printed += piece
            if not verdict_ns and _VERDICT.search(printed):
                verdict_ns = now_ns()
        exit_code = process.wait()
        ended_ns = now_ns()
    finally:
        os.close(master)
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed.decode(errors="replace"))
    if not verdict_ns:
        raise RuntimeError(f"{' '.join(argv)} printed no verdict: {text[-1000:]}")
    return Printed((verdict_ns - started_ns) / 1e6, (ended_ns - started_ns) / 1e6, exit_code, text)


def _read(master: int) -> bytes:
    """Nothing at the end: the kernel tells it as an error."""
    try:
        return os.read(master, 1 << 16)
    except OSError:
        return b""


async def command(argv: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> Printed:
    """The same, while the event loop goes on."""
    return await asyncio.to_thread(in_terminal, argv, cwd, environment)
