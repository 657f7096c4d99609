"""The agent as a library: fix a failing test with the bundled network, all in one process.

Run it in the project's environment: ``python examples/fix_in_process.py``. It makes a small
repository in a temporary directory, so nothing of yours is touched.
"""

import asyncio
import tempfile
from pathlib import Path

from tightloop import Agent

CODE = """\
def clamp(value, low, high):
    if value < low:
        return low
    if value < high:
        return high
    return value
"""
TESTS = """\
from mathy import clamp


def test_inside():
    assert clamp(2, 1, 3) == 2


def test_above():
    assert clamp(9, 1, 3) == 3
"""


async def main(home: Path) -> None:
    """One turn, its diff, and where its time went; then the repository gets the fix."""
    repository = home / "mathy"
    repository.mkdir()
    (repository / "mathy.py").write_text(CODE)
    (repository / "test_mathy.py").write_text(TESTS)

    async with Agent(repository, model="patchling", state_dir=home / "state") as agent:
        turn = await agent.run("Fix the failing test: `python -m pytest -q`")

        print(turn.text)
        print(turn.diff)
        for part, seconds in turn.ledger.items():
            print(f"{part:>8} {seconds * 1e3:8.2f} ms")
        print("applied:", *await agent.apply())


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(Path(directory)))
