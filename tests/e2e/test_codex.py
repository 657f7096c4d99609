"""70x: Codex CLI from its registry, unmodified, over HTTP and over WebSocket."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.codex import Codex, items, program, usage
from tests.e2e.conftest import Serve
from tests.e2e.relay import Event, Relay, Socket
from tests.e2e.stock_clients import LIMIT_S, Home, run, started
from tightloop.bench.bugs import load_bugs, write_repository
from tightloop.bench.paths import PROMPT

pytestmark = pytest.mark.timeout(120)

ADD = "*** Begin Patch\n*** Add File: made.txt\n+made\n*** End Patch\n"
TWO_TOOLS = [
    [{"call": {"name": "exec_command", "arguments": {"cmd": "echo seen > shell.txt"}}}],
    [{"call": {"name": "apply_patch", "arguments": ADD}}],
    [{"text": "all done"}],
]
BROKEN = "def double(n):\n    return n + n + 1\n"
TEST = "from target import double\n\n\ndef test_double():\n    assert double(2) == 4\n"
RUN_TESTS = "python -m pytest -q -p no:cacheprovider test_target.py"
REPAIR = """*** Begin Patch
*** Update File: target.py
@@
 def double(n):
-    return n + n + 1
+    return n + n
*** End Patch
"""
FIX = [
    [{"call": {"name": "exec_command", "arguments": {"cmd": RUN_TESTS}}}],
    [{"call": {"name": "apply_patch", "arguments": REPAIR}}],
    [{"call": {"name": "exec_command", "arguments": {"cmd": RUN_TESTS}}}],
    [{"text": "the test passes"}],
]
BUG = "python-stdlib-tokenize-comparison"
"""A held-out bug that the bundled model repairs with its first candidate."""

Script = Callable[..., str]


def kinds(create: Event) -> list[str]:
    """The types of a request's input items."""
    return [item["type"] for item in create["input"]]


def answer_ids(socket: Socket) -> list[str]:
    """The ids of a socket's completed responses, in order."""
    return [e["response"]["id"] for e in socket.received if e["type"] == "response.completed"]


def check_both_tools(done: Any, project: Path) -> None:
    """The scripted command and patch have been carried out, and Codex says so."""
    done.well()
    assert (project / "shell.txt").read_text() == "seen\n"
    assert (project / "made.txt").read_text() == "made\n"
    assert [call["exit_code"] for call in items(done, "command_execution")] == [0]
    assert [change["status"] for change in items(done, "file_change")] == ["completed"]
    assert [message["text"] for message in items(done, "agent_message")] == ["all done"]


async def test_700_a_command_and_a_patch_over_http(
    serve: Serve, script: Script, home: Home
) -> None:
    """Each request carries everything; no socket is tried; nothing leaves the machine."""
    served = serve("--model", script(TWO_TOOLS))
    async with Relay(served.url) as relay:
        done = await Codex(home, relay.url, relay.origin, websockets=False).exec()
    check_both_tools(done, home.project)
    posts = [post.json for post in relay.posts("/v1/responses")]
    assert [("previous_response_id" in post, post["stream"]) for post in posts] == [
        (False, True)
    ] * 3
    assert kinds(posts[2])[-4:] == [
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
    ]
    assert (relay.sockets, relay.outside) == ([], [])


async def test_701_it_repairs_a_failing_test_and_sends_only_what_is_new(
    serve: Serve, script: Script, home: Home
) -> None:
    """One socket, one prewarm, then each request names its parent and carries one tool output."""
    home.write(target=BROKEN, test_target=TEST)
    served = serve("--model", script(FIX))
    async with Relay(served.url) as relay:
        done = (await Codex(home, relay.url, relay.origin).exec("make the test pass")).well()
    ran = items(done, "command_execution")
    assert [call["exit_code"] for call in ran] == [1, 0]
    assert "1 passed" in ran[1]["aggregated_output"]
    assert (home.project / "target.py").read_text() == "def double(n):\n    return n + n\n"

    (socket,) = relay.sockets
    prewarm, first, *later = socket.creates
    assert prewarm["generate"] is False
    assert "previous_response_id" not in prewarm
    answers = answer_ids(socket)
    parents = [create["previous_response_id"] for create in (first, *later)]
    assert parents == answers[:-1]
    assert [kinds(create) for create in later] == [
        ["function_call_output"],
        ["custom_tool_call_output"],
        ["function_call_output"],
    ]
    assert relay.posts("/v1/responses") == []
    assert relay.outside == []


async def test_702_a_prewarm_is_answered_at_once_and_empty(
    serve: Serve, script: Script, home: Home
) -> None:
    """By a server whose engine ends no answer; the first turn continues from it."""
    served = serve("--model", script([[{"hold": True}]]))
    has_turn = asyncio.Event()

    def watch(socket: Socket, _event: Event) -> bool:
        if len(socket.creates) == 2:
            has_turn.set()
        return False

    async with Relay(served.url, cut=watch) as relay:
        codex = Codex(home, relay.url, relay.origin)
        async with started(codex.argv(), home, await codex.configure()):
            async with asyncio.timeout(LIMIT_S):
                await has_turn.wait()
    (socket,) = relay.sockets
    prewarm, turn = socket.creates
    assert prewarm["generate"] is False
    (answer,) = (e["response"] for e in socket.received if e["type"] == "response.completed")
    assert answer["output"] == []
    assert turn["previous_response_id"] == answer["id"]


async def test_703_the_servers_catalog_unchanged_gives_a_patch_tool(
    serve: Serve, script: Script, home: Home
) -> None:
    """Read by Codex from ``/v1/models``; it neither warns about the model nor loses a tool."""
    served = serve("--model", script(TWO_TOOLS))
    async with Relay(served.url) as relay:
        done = await Codex(home, relay.url, relay.origin, lite=None).exec()
    check_both_tools(done, home.project)
    assert items(done, "error") == []
    assert [e.status for e in relay.exchanges if e.path.startswith("/v1/models")] == [200]


async def test_704_lite_mode_sends_its_tools_once_and_keeps_them(
    serve: Serve, script: Script, home: Home
) -> None:
    """The tools are an input item of the first request; the server offers them ever after."""
    served = serve("--model", script(TWO_TOOLS))
    async with Relay(served.url) as relay:
        done = await Codex(home, relay.url, relay.origin, lite=True).exec()
    check_both_tools(done, home.project)
    (socket,) = relay.sockets
    assert sum("additional_tools" in kinds(create) for create in socket.creates) == 1
    assert [create.get("tools") for create in socket.creates] == [None] * len(socket.creates)
    assert [kinds(create) for create in socket.creates[-2:]] == [
        ["function_call_output"],
        ["custom_tool_call_output"],
    ]


@pytest.mark.parametrize("lite", [False, None], ids=["classic", "the-servers-catalog"])
async def test_705_the_bundled_model_repairs_a_bug_through_it(
    serve: Serve, home: Home, lite: bool | None
) -> None:
    """No script: the network that ships with tightloop, a real function, its own tests."""
    home.project.rmdir()
    bug = next(bug for bug in load_bugs() if bug.id == BUG)
    write_repository(bug, home.project)
    served = serve("--model", "patchling")
    async with Relay(served.url) as relay:
        codex = Codex(home, relay.url, relay.origin, model="patchling", lite=lite)
        done = (await codex.exec(PROMPT)).well()
    assert (home.project / "target.py").read_text() == bug.module
    assert items(done, "command_execution")[-1]["exit_code"] == 0
    (socket,) = relay.sockets
    assert all("previous_response_id" in create for create in socket.creates[1:])
    assert usage(done)["output_tokens"] > 0


async def test_706_its_doctor_finds_the_server_and_the_socket(serve: Serve, home: Home) -> None:
    """What a user is told to run when something seems wrong."""
    served = serve("--model", "scripted")
    async with Relay(served.url) as relay:
        env = await Codex(home, relay.url, relay.origin).configure()
        done = await run([program(), "doctor", "--network-only", "--json"], home, env)
    checks = json.loads(done.well().out)["checks"]
    for name in ("provider_reachability", "websocket_reachability"):
        assert checks[f"network.{name}"]["status"] == "ok", checks[f"network.{name}"]
