"""77x: Claude Code from its registry, over the Messages API."""

from typing import Any

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.relay import Relay
from tests.e2e.stock_clients import Home, installed, run
from tests.e2e.test_codex import Script

pytestmark = pytest.mark.timeout(120)


def answers(home: Home) -> list[Any]:
    """A command, a new file, the last word."""
    command = {"command": "echo seen > shell.txt", "description": "Leave a mark"}
    written = {"file_path": str(home.project / "made.txt"), "content": "made\n"}
    return [
        [{"text": "I begin."}, {"call": {"name": "Bash", "arguments": command}}],
        [{"call": {"name": "Write", "arguments": written}}],
        [{"text": "all done"}],
    ]


def environment(home: Home, origin: str) -> dict[str, str]:
    """What Claude Code is told: whom to ask, and to keep to itself otherwise."""
    return home.environment(
        origin,
        CLAUDE_CONFIG_DIR=str(home.home / "claude"),
        ANTHROPIC_BASE_URL=origin,
        ANTHROPIC_API_KEY="none needed",
        ANTHROPIC_MODEL="scripted",
        ANTHROPIC_SMALL_FAST_MODEL="scripted",
        ANTHROPIC_DEFAULT_HAIKU_MODEL="scripted",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        DISABLE_TELEMETRY="1",
        DISABLE_AUTOUPDATER="1",
        DISABLE_ERROR_REPORTING="1",
        IS_SANDBOX="1",
    )


async def test_770_bash_and_write(serve: Serve, script: Script, home: Home) -> None:
    """Two tools and a last word, streamed; the same tools and system text each time."""
    served = serve("--model", script(answers(home)))
    async with Relay(served.url) as relay:
        env = environment(home, relay.origin)
        program = installed("npm", "node_modules", ".bin", "claude")
        options = ["--output-format", "stream-json", "--verbose", "--dangerously-skip-permissions"]
        done = (await run([program, "-p", "write it", *options], home, env)).well()
    assert (home.project / "shell.txt").read_text() == "seen\n"
    assert (home.project / "made.txt").read_text() == "made\n"
    result = done.lines[-1]
    assert (result["type"], result["is_error"], result["result"]) == ("result", False, "all done")
    assert result["num_turns"] == 3
    posts = relay.posts("/v1/messages")
    assert {post.status for post in posts} == {200}
    assert relay.outside == []
    assert all(post.json["stream"] for post in posts if post.json.get("tools"))
