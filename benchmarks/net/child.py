"""Child processes that print one JSON line when they are ready and end with their standard input."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson

READY_LIMIT_S = 60.0
END_LIMIT_S = 10.0


class ChildError(Exception):
    """A child did not start or failed; the text holds its last words."""


def called(argv: Sequence[str]) -> str:
    """The module that a command runs, or else its program."""
    places = [index for index, word in enumerate(argv[:-1]) if word == "-m"]
    return argv[places[-1] + 1] if places else argv[0]


@asynccontextmanager
async def ready_child(
    argv: Sequence[str], environment: Mapping[str, str] | None = None
) -> AsyncIterator[dict[str, Any]]:
    """The ready line of a started child, which is ended on the way out. Raises ChildError."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        try:
            async with asyncio.timeout(READY_LIMIT_S):
                line = await process.stdout.readline()
        except TimeoutError:
            raise ChildError(f"{called(argv)} was not ready in {READY_LIMIT_S:.0f} s") from None
        if not line:
            raise ChildError(f"{called(argv)} ended before it was ready")
        yield orjson.loads(line)
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            async with asyncio.timeout(END_LIMIT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def run_child(
    argv: Sequence[str], limit_s: float, environment: Mapping[str, str] | None = None
) -> Any:
    """What the child printed as its last line, decoded. Raises ChildError."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    try:
        async with asyncio.timeout(limit_s):
            printed, _ = await process.communicate()
    except TimeoutError:
        raise ChildError(f"{called(argv)} took longer than {limit_s:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = printed.strip().splitlines()
    if process.returncode != 0 or not lines:
        raise ChildError(f"{called(argv)} failed with status {process.returncode}")
    return orjson.loads(lines[-1])
