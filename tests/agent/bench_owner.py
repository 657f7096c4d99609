"""A program that runs tests ahead and says how far it has come; a test kills it there.

``python -m tests.agent.bench_owner DIRECTORY STEP``. What runs ahead holds the argument ``MARK``, in a
session of its own and deaf to signals.
"""

import asyncio
import sys
from pathlib import Path

from tests.agent.bench_rig import FILES, Rig, bench_over
from tightloop.sandbox.aside import Aside
from tightloop.sandbox.interface import Policy
from tightloop.sandbox.slots import open_twin
from tightloop.sandbox.workspace import Workspace

MARK = "1003.25"
HANG = f"trap '' TERM HUP INT\necho up\nsetsid sleep {MARK} & sleep {MARK}\n"
STEPS = ("fresh running", "fresh kept", "twin running", "twin kept")


async def main(directory: Path, step: str) -> None:
    """Go on until killed."""
    isolation, what = step.split()
    make_aside = twin_of if isolation == "twin" else None
    async with bench_over(directory, FILES, make_aside=make_aside) as rig:
        await rig.run()
        rig.change("m", HANG if what == "running" else "exit 0\n")
        if what == "running":
            await _until_running(rig)
        else:
            await rig.bench.quiet()
        print(step, flush=True)
        await asyncio.Event().wait()


async def twin_of(workspace: Workspace, policy: Policy) -> Aside:
    """A sandbox for all runs ahead."""
    return await open_twin(workspace, policy)


async def _until_running(rig: Rig) -> None:
    while not await asyncio.to_thread(processes_with, MARK):
        pass


def processes_with(word: str) -> list[int]:
    """Living processes with this argument."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                words = (place / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if word.encode() in words:
                found.append(int(place.name))
    return found


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
