"""A server of our own as a real process on a free port, for programs that measure from outside."""

import asyncio
import contextlib
import sys
from pathlib import Path

import orjson

from tightloop.bench.bugs import BenchError

START_LIMIT_S = 60.0


class ServeProcess:
    """``tightloop serve`` as a child. ``async with`` starts it and ends it."""

    def __init__(self, model: str, state_dir: Path) -> None:
        self.url = ""
        """Base URL including ``/v1``, once started."""
        self._argv = [
            *(sys.executable, "-m", "tightloop", "serve", "--model", model),
            *("--port", "0", "--json-ready", "--state-dir", str(state_dir)),
        ]
        self._log_path = state_dir / "serve.log"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> "ServeProcess":
        """Wait for the line that says where it listens. Raises BenchError with its last words."""
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log
            )  # fmt: skip
        try:
            async with asyncio.timeout(START_LIMIT_S):
                await self._read_ready()
        except BaseException:
            await self._stop()
            raise
        return self

    async def _read_ready(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            await self._process.wait()
            said = self._log_path.read_text(errors="replace").strip().splitlines()
            raise BenchError(f"the server did not start: {said[-1] if said else 'no output'}")
        self.url = orjson.loads(line)["url"]

    async def __aexit__(self, *_details: object) -> None:
        await self._stop()

    async def _stop(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(10.0):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
