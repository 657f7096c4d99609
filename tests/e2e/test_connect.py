"""78x: agents started by ``tightloop connect``, with the configuration that it makes."""

from typing import Any

import pytest

from tests.e2e.conftest import Serve, command
from tests.e2e.relay import Relay
from tests.e2e.stock_clients import Done, Home, commit, installed, run
from tests.e2e.test_codex import Script

pytestmark = pytest.mark.timeout(120)

BIN = ("npm", "node_modules", ".bin")
LAST = [{"text": "all done"}]


def calling(name: str, argument: str, **more: Any) -> list[Any]:
    """Answers: one command by the tool of that name, then the last word."""
    arguments = {argument: "echo seen > shell.txt", **more}
    return [[{"call": {"name": name, "arguments": arguments}}], LAST]


async def connected(home: Home, relay: Relay, client: str, program: str, *words: str) -> Done:
    """One task, through ``tightloop connect``; its command has been carried out."""
    commit(home.project)
    options = ["--url", relay.url, "--state-dir", str(home.home / "state"), "--client", program]
    argv = [*command(), "connect", client, *options, "--", *words]
    done = (await run(argv, home, home.environment(relay.origin))).well()
    assert (home.project / "shell.txt").read_text() == "seen\n"
    assert "all done" in done.out or client == "mini"
    return done


async def test_780_codex(serve: Serve, script: Script, home: Home) -> None:
    """Over one socket, its tools sent once."""
    served = serve("--model", script(calling("exec_command", "cmd")))
    async with Relay(served.url) as relay:
        words = ("exec", "--json", "-s", "danger-full-access", "write it")
        await connected(home, relay, "codex", installed(*BIN, "codex"), *words)
    (socket,) = relay.sockets
    assert relay.posts("/v1/responses") == []
    assert [create["previous_response_id"] for create in socket.creates[1:]] == [
        event["response"]["id"]
        for event in socket.received
        if event["type"] == "response.completed"
    ][:-1]
    has_tools = ["additional_tools" in str(create["input"]) for create in socket.creates]
    assert has_tools.count(True) == 1


async def test_781_claude(serve: Serve, script: Script, home: Home) -> None:
    """Over Messages."""
    served = serve("--model", script(calling("Bash", "command", description="Leave a mark")))
    async with Relay(served.url) as relay:
        words = ("-p", "write it", "--allowed-tools", "Bash")
        await connected(home, relay, "claude", installed(*BIN, "claude"), *words)
    assert {post.status for post in relay.posts("/v1/messages")} == {200}
    assert relay.outside == []


async def test_782_opencode(serve: Serve, script: Script, home: Home) -> None:
    """Over Responses."""
    served = serve("--model", script(calling("bash", "command", description="Leave a mark")))
    async with Relay(served.url) as relay:
        program = installed(*BIN, "opencode")
        await connected(home, relay, "opencode", program, "run", "write it")
    assert {post.status for post in relay.posts("/v1/responses")} == {200}


async def test_783_mini(serve: Serve, script: Script, home: Home) -> None:
    """Over Chat Completions; it is done when it says so in its own way."""
    submit = {"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}
    answers = [calling("bash", "command")[0], [{"call": {"name": "bash", "arguments": submit}}]]
    served = serve("--model", script(answers))
    async with Relay(served.url) as relay:
        program = installed("mini-swe-agent", "bin", "mini")
        words = ("-t", "write it", "-y", "--exit-immediately", "-l", "0")
        await connected(home, relay, "mini", program, *words)
    assert [post.status for post in relay.posts("/v1/chat/completions")] == [200, 200]
