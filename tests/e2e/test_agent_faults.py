"""92x: servers and connections that fail under our own agent in the middle of a turn.

1. the server is killed while a response is open whose command has run, and started again on its port
2. the server is killed while a command runs
3. a connection is lost in the middle of an answer, over WebSocket and over HTTP
4. a host that limits the rate, with ``Retry-After``
5. a host that is down for good: the turn ends with the reason, and goes on later
6. a budget of tokens: an orderly end
"""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.agent.cutting import Cutter
from tests.e2e.agent_runs import Run, commit, is_command_end, running
from tests.e2e.conftest import Serve

pytestmark = pytest.mark.timeout(150)

COUNT = "echo ran >> count"
PATCH = "*** Begin Patch\n*** Update File: f\n@@\n-old\n+new\n*** End Patch"
Answers = list[list[dict[str, Any]]]
RUN = {"call": {"name": "exec_command", "arguments": {"cmd": COUNT}}}
FIX: Answers = [
    [RUN],
    [{"text": "Now the patch."}, {"call": {"name": "apply_patch", "arguments": PATCH}}],
    [{"call": {"name": "exec_command", "arguments": {"cmd": "cat count f"}}}],
    [{"text": "All is done."}],
]
WANTED = {
    "+++ b/count",
    "+ran",
    "+++ b/f",
    "-old",
    "+new",
}


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with one file."""
    return commit(tmp_path / "repo", {"f": "old\n"})


def check(run: Run, status: int, num_commands: Sequence[str] = (COUNT, "cat count f")) -> None:
    """As if nothing had happened."""
    assert status == 0, run.events[-1]
    assert run.commands() == list(num_commands)
    assert run.patch() == WANTED
    assert run.of("turn.completed")


def port_of(url: str) -> str:
    return url.removesuffix("/v1").rpartition(":")[2]


@pytest.mark.parametrize("transport", ["ws", "http"])
async def test_921_a_server_killed_behind_a_command(
    serve: Serve, script: Callable[..., str], repo: Path, transport: str
) -> None:
    """kill -9; the new one at its port knows nothing. The command is not run again."""
    held = [[RUN, {"hold": True}], *FIX[1:]]
    first = serve("--model", script(held))
    async with running(repo, first.url, "--transport", transport) as run:
        await run.until(is_command_end)
        first.signal(signal.SIGKILL)
        serve("--model", script(held), "--port", port_of(first.url))
        check(run, await run.end())
    figures = run.of("turn.completed")[0]["tightloop"]
    assert figures["num_retries"] >= 1
    assert figures["ledger"]["waiting"] > 0
    assert run.of("turn.retry")[0]["reason"].startswith("connection lost")


async def test_922_a_server_killed_while_a_command_runs(
    serve: Serve, script: Callable[..., str], repo: Path
) -> None:
    """Its output is part of the conversation that the next server is told."""
    slow = f"{COUNT}; until test -e {repo.parent}/go; do sleep 0.02; done"
    answers = [[{"call": {"name": "exec_command", "arguments": {"cmd": slow}}}], *FIX[1:]]
    first = serve("--model", script(answers))
    async with running(repo, first.url, "--sandbox", "none") as run:
        await run.until(lambda event: event["type"] == "item.started")
        first.signal(signal.SIGKILL)
        second = serve("--model", script(answers), "--port", port_of(first.url))
        assert second.url == first.url
        (repo.parent / "go").touch()
        check(run, await run.end(), (slow, "cat count f"))


@pytest.mark.parametrize("transport", ["ws", "http"])
async def test_923_a_connection_lost_in_the_middle_of_a_patch(
    serve: Serve, script: Callable[..., str], repo: Path, transport: str
) -> None:
    """The rest of the response is read over another one; nothing is asked for again."""
    served = serve("--model", script(FIX))
    async with (
        Cutter(int(port_of(served.url)), lambda here, before: here + before == 22) as cut,
        running(repo, cut.url, "--transport", transport) as run,
    ):
        check(run, await run.end())
        assert cut.num_cuts == 1
    assert [event["attempt"] for event in run.of("turn.retry")] == [0], "it was read on"
    assert run.of("turn.completed")[0]["tightloop"]["num_retries"] == 1


class Limiter:
    """A host in front of another that refuses the first requests; ``async with`` it."""

    def __init__(self, upstream: str, num_refused: int, headers: dict[str, str]) -> None:
        self.num_asked = 0
        self.url = ""
        self._upstream = upstream
        self._num_refused = num_refused
        self._headers = headers

    async def __aenter__(self) -> "Limiter":
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_details: object) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.method == "POST":
            self.num_asked += 1
            if self.num_asked <= self._num_refused:
                error = {"message": "slow down", "type": "rate_limit_error", "code": None}
                return web.json_response({"error": error}, status=429, headers=self._headers)
        url = self._upstream.removesuffix("/v1") + request.path_qs
        async with (
            aiohttp.ClientSession() as client,
            client.request(request.method, url, data=body or None) as upstream,
        ):
            answer = await upstream.read()
            kind = upstream.headers["Content-Type"]
            return web.Response(body=answer, status=upstream.status, headers={"Content-Type": kind})


@pytest.mark.parametrize("headers", [{"Retry-After": "1"}, {}])
async def test_924_a_rate_limit_is_waited_for(
    serve: Serve, script: Callable[..., str], repo: Path, headers: dict[str, str]
) -> None:
    """As long as the host says, else for a short while; the user is told for how long."""
    served = serve("--model", script(FIX))
    async with (
        Limiter(served.url, 2, headers) as limiter,
        running(repo, limiter.url, "--transport", "http") as run,
    ):
        check(run, await run.end())
    retries = run.of("turn.retry")
    assert [event["attempt"] for event in retries] == [1, 2]
    assert all(event["reason"] == "rate limit: slow down" for event in retries)
    if headers:
        assert all(1.0 <= event["wait_s"] <= 1.1 for event in retries)


async def test_925_a_server_that_does_not_come_back(
    serve: Serve, script: Callable[..., str], repo: Path
) -> None:
    """The reason is told, the work so far is kept, and the conversation can be gone on with."""
    held = [[RUN, {"hold": True}], *FIX[1:]]
    first = serve("--model", script(held))
    async with running(repo, first.url, "--max-retries", "1") as run:
        await run.until(is_command_end)
        first.signal(signal.SIGKILL)
        assert await run.end() == 1
    message = run.of("turn.failed")[0]["error"]["message"]
    assert "given up after 1 tries" in message
    assert run.patch() == {"+++ b/count", "+ran"}
    second = serve("--model", script(held))
    thread = run.of("thread.started")[0]["thread_id"]
    async with running(repo, second.url, "--resume", thread) as again:
        assert await again.end() == 0
    assert again.commands() == ["cat count f"]
    assert again.patch() == WANTED


async def test_926_a_budget_ends_in_order(
    serve: Serve, script: Callable[..., str], repo: Path
) -> None:
    """After the response that used it up, with its call answered and its work kept."""
    counted = [[*answer, {"usage": {"input_tokens": 400}}] for answer in FIX]
    served = serve("--model", script(counted))
    async with running(repo, served.url, "--max-tokens", "700") as run:
        assert await run.end() == 1
    message = run.of("turn.failed")[0]["error"]["message"]
    assert message.startswith("the budget of tokens is used up: 8")
    assert run.patch() == WANTED
