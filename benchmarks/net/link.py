"""A link between two namespaces, seen from the experiment: started, entered, measured, ended."""

import asyncio
import mmap
import sys
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks.net.relay import COUNTERS, FAR

START_LIMIT_S = 20.0
FAR_ADDRESS = FAR


@dataclass(frozen=True, slots=True)
class Traffic:
    """What has passed so far: packets and bytes, up (client to server) and down; drops of both."""

    packets_up: int
    bytes_up: int
    packets_down: int
    bytes_down: int
    num_dropped: int


class LinkError(Exception):
    """The relay did not start; the text says why."""


class Link:
    """``async with`` starts the relay and ends it; ``near`` is the client's side."""

    def __init__(self, rtt_s: float, counters: Path, mbit_per_s: float | None = None) -> None:
        self._argv = [
            *(sys.executable, "-m", "benchmarks.net.relay"),
            *("--rtt-ms", f"{rtt_s * 1e3:g}", "--counters", str(counters)),
        ]
        if mbit_per_s is not None:
            self._argv += ["--mbit-per-s", f"{mbit_per_s:g}"]
        self._spaces: dict[str, str] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> "Link":
        """Wait until both namespaces are there. Raises LinkError."""
        self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_LIMIT_S):
                line = await self._process.stdout.readline()
        except TimeoutError:
            await self._end()
            raise LinkError(f"the relay said nothing for {START_LIMIT_S:.0f} s") from None
        if not line:
            _, said = await self._process.communicate()
            lines = said.decode(errors="replace").strip().splitlines()
            raise LinkError(f"no link: {lines[-1] if lines else 'the relay ended'}")
        self._spaces = orjson.loads(line)
        return self

    def near(self, *argv: str) -> list[str]:
        """The command that runs ``argv`` on the client's side."""
        return [sys.executable, "-m", "benchmarks.net.inside", self._spaces["near"], *argv]

    def far(self, *argv: str) -> list[str]:
        """The command that runs ``argv`` on the server's side."""
        return [sys.executable, "-m", "benchmarks.net.inside", self._spaces["far"], *argv]

    async def __aexit__(self, *_details: object) -> None:
        await self._end()

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.kill()  # nothing is lost: namespaces and devices end with it
        await process.wait()


class Meter:
    """Reads a relay's counters from another process, without disturbing it."""

    def __init__(self, counters: Path) -> None:
        with counters.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), COUNTERS.size, prot=mmap.PROT_READ)

    def read(self) -> Traffic:
        """What has passed so far."""
        up, bytes_up, dropped_up, down, bytes_down, dropped_down = COUNTERS.unpack_from(
            self._memory
        )
        return Traffic(up, bytes_up, down, bytes_down, dropped_up + dropped_down)

    def close(self) -> None:
        """Let the memory go."""
        self._memory.close()
