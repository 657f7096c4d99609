"""Tests run ahead for whoever has no rights of their own: overlays in a namespace."""

import json
from pathlib import Path

import pytest

from tests.sandbox.ordinary import place, run

__all__ = ["place"]

AHEAD = """
import json
from tightloop.agent.workbench import Setting, open_workbench
from tightloop.sandbox.slots import open_twin

async def main():
    workspace = await open_workspace(repository, state_dir=state)
    policy = Policy(workspace.path, warm_tests=False)
    sandbox = await open_sandbox(policy, kind="bubblewrap")
    setting = Setting(
        workspace, sandbox, policy, lambda other: open_sandbox(other, kind="bubblewrap"), state,
        num_cores=8, open_aside=lambda: open_twin(workspace, policy),
    )
    program = workspace.path / "pytest"
    program.write_text("#!/bin/bash\\npwd\\ncat lines\\n")
    program.chmod(0o755)
    async with open_workbench(setting) as bench:
        await bench.quiet()
        bench.begin_turn("test it with `./pytest`")
        (workspace.path / "lines").write_text("new\\n")
        bench.changed(("lines",))
        await bench.quiet()
        result = await bench.run(Command(script="./pytest"))
        said = [workspace.kind, result.how, result.output == f"{workspace.path}\\nnew\\n"]
        tries = await bench.finish_turn()
        said.append([one.is_used for one in tries])
    await sandbox.close()
    await workspace.discard()
    print(json.dumps(said))

assert own_namespace.enter(state) == ""
asyncio.run(main())
"""


@pytest.mark.parametrize("is_root", [False, True], ids=["ordinary", "root"])
def test_a_run_ahead_is_used(place: Path, is_root: bool) -> None:
    """Over an overlay and in a twin, whoever asks."""
    done = run(place, AHEAD, is_root=is_root)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["overlay", "spawn ahead", True, [True]]
