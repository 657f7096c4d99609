"""The agent as a library: fix a failing test with the bundled network, all in one process.

Run it in the project's environment: ``python examples/fix_in_process.py``. It makes a small
repository in a temporary directory, so nothing of yours is touched.
"""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from tightloop.agent.loop import Agent
from tightloop.agent.tools.apply_patch import ApplyPatch
from tightloop.agent.tools.exec_command import ExecCommand
from tightloop.agent.tools.interface import ToolContext
from tightloop.harness.backend import open_backend
from tightloop.client.session import Session
from tightloop.sandbox.interface import Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.workspace import open_workspace
from tightloop.trace.ledger import build_ledger

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


async def main() -> None:
    """One turn, its diff, and where its time went."""
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        repository = home / "mathy"
        repository.mkdir()
        (repository / "mathy.py").write_text(CODE)
        (repository / "test_mathy.py").write_text(TESTS)

        backend = await open_backend(stack, model="patchling", server=None)
        workspace = await open_workspace(repository, state_dir=home / "state")
        stack.push_async_callback(workspace.discard)
        sandbox = await open_sandbox(Policy(workspace.path))
        stack.push_async_callback(sandbox.close)

        tools = [ExecCommand(), ApplyPatch()]
        definitions = [tool.definition() for tool in tools]
        session = Session(backend.transport, model=backend.model, tools=definitions)
        agent = Agent(session, tools, ToolContext(workspace.path, sandbox))
        turn = await agent.run_turn("Fix the failing test: `python -m pytest -q`")

        print(turn.text)
        print(await workspace.diff())
        ledger = build_ledger(turn.start_ns, turn.end_ns, turn.spans, turn.round_trips)
        for part, seconds in ledger.parts.items():
            print(f"{part:>8} {seconds * 1e3:8.2f} ms")


asyncio.run(main())
