"""75x: mini-swe-agent from its registry, in an environment of its own, over Chat Completions."""

import json

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.relay import Relay
from tests.e2e.stock_clients import Home, installed, run
from tests.e2e.test_codex import Script

pytestmark = pytest.mark.timeout(120)

SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
ANSWERS = [
    [
        {"text": "THOUGHT: write it"},
        {"call": {"name": "bash", "arguments": {"command": "echo made > made.txt"}}},
    ],
    [{"call": {"name": "bash", "arguments": {"command": SUBMIT}}}],
]


async def test_750_a_command_and_the_submission(serve: Serve, script: Script, home: Home) -> None:
    """Requests that do not stream; the call comes back with its output; it ends as submitted."""
    served = serve("--model", script(ANSWERS))
    trajectory = home.tmp / "run.traj.json"
    async with Relay(served.url) as relay:
        env = home.environment(
            relay.origin,
            OPENAI_API_KEY="none needed",
            OPENAI_API_BASE=relay.url,
            OPENAI_BASE_URL=relay.url,
            MSWEA_CONFIGURED="true",
            MSWEA_COST_TRACKING="ignore_errors",
            MSWEA_GLOBAL_CONFIG_DIR=str(home.home / "mini"),
            LITELLM_LOCAL_MODEL_COST_MAP="True",
        )
        program = installed("mini-swe-agent", "bin", "mini")
        options = ["-m", "openai/scripted", "-t", "write it", "-y", "--exit-immediately"]
        argv = [program, *options, "-l", "0", "-o", str(trajectory)]
        (await run(argv, home, env)).well()
    assert (home.project / "made.txt").read_text() == "made\n"
    assert json.loads(trajectory.read_text())["info"]["exit_status"] == "Submitted"
    first, second = relay.posts("/v1/chat/completions")
    assert [first.status, second.status] == [200, 200]
    assert [message["role"] for message in second.json["messages"][-2:]] == ["assistant", "tool"]
    assert relay.outside == []
