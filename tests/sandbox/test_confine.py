"""The plan that a confined process carries out."""

import json
from pathlib import Path

from tightloop.sandbox.confine import prepare
from tightloop.sandbox.interface import Policy


def test_the_plan_allows_the_workspace_and_a_scratch_directory(tmp_path: Path) -> None:
    """The scratch directory is told by TMPDIR and goes away with the sandbox."""
    environment = {"PATH": "/usr/bin"}
    launch = prepare(Policy(tmp_path), environment, 9)
    scratch = Path(environment["TMPDIR"])
    plan = json.loads(launch.argv[-1])
    assert {str(tmp_path), str(scratch), "/dev/null"} <= set(plan["write"])
    assert str(tmp_path) not in plan["read"]
    assert "/usr" in plan["read"]
    assert "/" not in plan["read"]
    assert not plan["allow_network"]
    assert scratch.is_dir()
    launch.clean_up()
    assert not scratch.exists()
