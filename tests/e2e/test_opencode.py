"""76x: opencode from its registry, over Chat Completions and over Responses."""

import json
from typing import Any

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.relay import Relay
from tests.e2e.stock_clients import Done, Home, commit, installed, run
from tests.e2e.test_codex import Script

pytestmark = pytest.mark.timeout(120)


def answers(home: Home) -> list[Any]:
    """A command, a new file, the last word."""
    command = {"command": "echo seen > shell.txt", "description": "Leave a mark"}
    written = {"filePath": str(home.project / "made.txt"), "content": "made\n"}
    return [
        [{"call": {"name": "bash", "arguments": command}}],
        [{"call": {"name": "write", "arguments": written}}],
        [{"text": "all done"}],
    ]


async def opencode(home: Home, relay: Relay, package: str) -> Done:
    """One task to its end, by a provider made with one of the AI SDK's packages.

    It looks for a package of its own plugins at the registry, is refused, and goes on without.
    """
    model = {"name": "M", "tool_call": True, "limit": {"context": 32768, "output": 4096}}
    provider = {
        "npm": package,
        "name": "tightloop",
        "options": {"baseURL": relay.url, "apiKey": "none needed"},
        "models": {"scripted": model},
    }
    settings = {
        "$schema": "https://opencode.ai/config.json",
        "autoupdate": False,
        "share": "disabled",
        "model": "tl/scripted",
        "small_model": "tl/scripted",
        "provider": {"tl": provider},
    }
    (home.project / "opencode.json").write_text(json.dumps(settings), "utf-8")
    commit(home.project)
    places = ("DATA", "CONFIG", "CACHE", "STATE")
    env = home.environment(
        relay.origin,
        OPENCODE_DISABLE_AUTOUPDATE="1",
        OPENCODE_DISABLE_MODELS_FETCH="1",
        OPENCODE_DISABLE_SHARE="1",
        OPENCODE_DISABLE_LSP_DOWNLOAD="1",
        **{f"XDG_{place}_HOME": str(home.home / place.lower()) for place in places},
    )
    program = installed("npm", "node_modules", ".bin", "opencode")
    argv = [program, "run", "--format", "json", "-m", "tl/scripted", "write it"]
    return await run(argv, home, env)


def check(done: Done, home: Home) -> None:
    """Both tools have run, and it says so."""
    done.well()
    assert (home.project / "shell.txt").read_text() == "seen\n"
    assert (home.project / "made.txt").read_text() == "made\n"
    texts = [line["part"]["text"] for line in done.lines if line["type"] == "text"]
    assert texts == ["all done"]


async def test_760_two_tools_over_chat_completions(
    serve: Serve, script: Script, home: Home
) -> None:
    """Streamed, with usage; its first request is for a title and does not upset the turn."""
    served = serve("--model", script(answers(home), title=[{"text": "A title"}]))
    async with Relay(served.url) as relay:
        check(await opencode(home, relay, "@ai-sdk/openai-compatible"), home)
    posts = relay.posts("/v1/chat/completions")
    assert {post.status for post in posts} == {200}
    turns = [post for post in posts if post.json.get("tools")]
    assert [post.json["stream"] for post in turns] == [True] * 3
    assert all(post.answer.endswith(b"data: [DONE]\n\n") for post in turns)
    assert all(b'"usage":{' in post.answer for post in turns)


async def test_761_two_tools_over_responses(serve: Serve, script: Script, home: Home) -> None:
    """Streamed; the whole conversation comes with each request."""
    served = serve("--model", script(answers(home), title=[{"text": "A title"}]))
    async with Relay(served.url) as relay:
        check(await opencode(home, relay, "@ai-sdk/openai"), home)
    posts = relay.posts("/v1/responses")
    assert {post.status for post in posts} == {200}
    turns = [post for post in posts if post.json.get("tools")]
    assert [post.json["stream"] for post in turns] == [True] * 3
