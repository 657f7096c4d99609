"""The tools of a conversation: fixed, and the same bytes for the same configuration."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import orjson
import pytest
from aiohttp import web
from msgspec import Raw

from tests.agent.tools.mcp.test_server import SHOP
from tests.agent.tools.test_images import PNG
from tests.harness.audience import Listening
from tightloop.agent.events import ItemCompleted, TodoList, TurnCompleted
from tightloop.agent.tools.images import has_images
from tightloop.agent.turn import Status
from tightloop.engine.script_file import parse_script
from tightloop.engine.scripted import ScriptedEngine
from tightloop.governance.keys import KeyRing
from tightloop.harness.settings import Settings
from tightloop.harness.thread import open_thread
from tightloop.protocol.items import FunctionCallOutput
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint

Step = dict[str, Any]
ALL = f"""
[tools]
view_image = true
update_plan = true
mcp_wait_s = 60
[mcp.shop]
command = "{sys.executable}"
args = ["{SHOP}"]
start_timeout_s = 60
trusted = true
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    directory = tmp_path / "repo"
    (directory / "sub").mkdir(parents=True)
    (directory / "AGENTS.md").write_text("Use tabs.")
    (directory / "sub/AGENTS.md").write_text("No tabs here.")
    (directory / "sub/a.py").write_text("x = 1\n")
    return directory


def settings(repo: Path, answers: list[list[Step]], configuration: str = "") -> Settings:
    top = repo.parent
    (top / "script.json").write_bytes(orjson.dumps({"answers": answers}))
    (top / "c.toml").write_text(configuration)
    return Settings(
        repo=repo,
        state_dir=top / "state",
        model=f"scripted:{top / 'script.json'}",
        sandbox="none",
        config=top / "c.toml",
    )


def call(name: str, arguments: Step) -> list[Step]:
    return [{"call": {"name": name, "arguments": arguments}}]


class Requested(msgspec.Struct):
    """What of a request must stay."""

    tools: Raw
    input: list[Raw]


@asynccontextmanager
async def serving(answers: list[list[Step]]) -> AsyncIterator[str]:
    """The root of a real server with a script."""
    endpoint = Endpoint(ScriptedEngine(parse_script(orjson.dumps({"answers": answers}))))
    access = Access(KeyRing(), "127.0.0.1")
    server = Server(endpoint, access, host="127.0.0.1", port=0)
    try:
        yield await server.start()
    finally:
        await server.stop(0)


@asynccontextmanager
async def recorded(url: str) -> AsyncIterator[tuple[str, list[Requested]]]:
    """The root of a server that hands everything on to ``url``, and what it was asked."""
    bodies: list[Requested] = []

    async def hand_on(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.method == "POST":
            bodies.append(msgspec.json.decode(body, type=Requested))
        path = request.path.removeprefix("/v1")
        headers = {"Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession() as client,
            client.request(request.method, url + path, data=body, headers=headers) as answer,
        ):
            kind = answer.headers["Content-Type"]
            return web.Response(
                body=await answer.read(), status=answer.status, headers={"Content-Type": kind}
            )

    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", hand_on)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", bodies
    finally:
        await runner.cleanup()


@pytest.mark.slow
async def test_the_same_configuration_sends_the_same_bytes(repo: Path) -> None:
    """Tools and opening message of two conversations, but for where each works; and within one,
    each request begins as the one before it."""
    answers = [
        call("mcp__shop__add", {"a": 1, "b": 2}),
        call("exec_command", {"cmd": "cat sub/a.py"}),
        call("mcp__shop__add", {"a": 3, "b": 4}),
        [{"text": "Done."}],
    ]
    skill = repo.parent / "skills/release"
    skill.mkdir(parents=True)
    (skill / "SKILL.md").write_text("---\nname: release\ndescription: Makes one.\n---\nTag it.\n")
    seen: list[list[Requested]] = []
    places: list[bytes] = []
    async with serving(answers) as url:
        for _ in range(2):
            async with recorded(url) as (front, bodies):
                asked = replace(
                    settings(repo, answers, ALL), server=front, transport="http", model=None
                )
                async with open_thread(asked, Listening()) as thread:
                    places.append(str(thread.workspace.path).encode())
                    result = await thread.agent.run_turn("go")
                    assert result.status is Status.COMPLETED, result.message
                    outputs = [
                        item.output
                        for item in thread.agent.items
                        if isinstance(item, FunctionCallOutput)
                    ]
                assert outputs[0] == "3"
                assert outputs[2] == "7"
                assert "No tabs here." in outputs[1]
                seen.append(bodies)
    first, second = seen
    assert len(first) == 4
    assert {bytes(body.tools) for body in first} == {bytes(body.tools) for body in second}
    assert len({bytes(body.tools) for body in first}) == 1
    for bodies in seen:
        for before, after in pairwise(bodies):
            assert after.input[: len(before.input)] == before.input
    opening, other = bytes(first[0].input[0]), bytes(second[0].input[0])
    assert places[0] != places[1]
    assert opening.replace(places[0], places[1]) == other
    assert opening.index(places[0]) > opening.index(b"release: Makes one.")
    assert opening.index(places[0]) > opening.index(b"Use tabs.")


async def test_an_image_reaches_the_model(repo: Path) -> None:
    (repo / "plot.png").write_bytes(PNG)
    answers = [call("view_image", {"path": "plot.png"}), [{"text": "A plot."}]]
    told = Listening()
    async with open_thread(settings(repo, answers, "[tools]\nview_image = true"), told) as thread:
        assert [tool.name for tool in thread.toolbox.tools][-1] == "view_image"
        result = await thread.agent.run_turn("look")
        assert result.status is Status.COMPLETED
        assert has_images(thread.agent.items)


async def test_a_model_that_cannot_see_gets_no_tool_for_images(repo: Path) -> None:
    """As its model list says; a read-only conversation gets no patches."""
    async with open_thread(settings(repo, [[{"text": "Hello."}]]), Listening()) as thread:
        assert thread.toolbox.reads_images is False
        assert [tool.name for tool in thread.toolbox.tools] == ["exec_command", "apply_patch"]


async def test_a_plan_ends_with_its_turn(repo: Path) -> None:
    steps = {"plan": [{"step": "look", "status": "completed"}]}
    told = Listening()
    answers = [call("update_plan", steps), [{"text": "Done."}]]
    async with open_thread(settings(repo, answers, "[tools]\nupdate_plan = true"), told) as thread:
        await thread.agent.run_turn("go")
    last = told.events[-2:]
    assert isinstance(last[0], ItemCompleted)
    assert isinstance(last[0].item, TodoList)
    assert isinstance(last[1], TurnCompleted)


async def test_the_users_own_words_and_skills(repo: Path) -> None:
    """Beside the configuration file; the repository's are marked."""
    top = repo.parent
    for place in (top / "skills", repo / ".agents/skills"):
        (place / place.parent.name).mkdir(parents=True)
        text = f"---\ndescription: From {place.parent.name}.\n---\nBody.\n"
        (place / place.parent.name / "SKILL.md").write_text(text)
    (top / "AGENTS.md").write_text("Answer in French.")
    told = Listening()
    async with open_thread(settings(repo, [[{"text": "Oui."}]]), told) as thread:
        (opening,) = thread.agent.items
        text = getattr(opening, "text", "")
        assert "The user's own rules for every project:\nAnswer in French." in text
        assert f"From {top.name}." in text
        assert thread.toolbox.expand("hi") == "hi"
        await thread.run_turn(f"use ${top.name}")
        asked = getattr(thread.agent.items[1], "text", "")
        assert asked.startswith(f"use ${top.name}\n\n[skill {top.name}, ")
        assert asked.endswith(
            "the user's own]\n---\ndescription: From " + f"{top.name}.\n---\nBody."
        )
    assert any("must be letters" in note for note in told.notes)
