"""The model listing serves SDKs and Codex in one answer."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import openai
import pytest

from tightloop.engine.interface import ModelInfo
from tightloop.engine.scripted import ScriptedEngine, echo_script
from tightloop.governance.keys import KeyRing
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.server.models import BASE_INSTRUCTIONS, model_list


class TwoModels(ScriptedEngine):
    """Serves two names, one of them as long as model files' are."""

    def models(self) -> Sequence[ModelInfo]:
        return (ModelInfo("scripted", "answers from a script", 4096), ModelInfo("hf:a/b/c.gguf@1"))


@asynccontextmanager
async def server() -> AsyncIterator[str]:
    running = Server(
        Endpoint(TwoModels(echo_script)), Access(KeyRing(()), "127.0.0.1"), host="127.0.0.1", port=0
    )
    try:
        yield await running.start()
    finally:
        await running.stop(grace_s=0)


def test_both_audiences_find_their_list() -> None:
    """SDKs read data; Codex reads models and needs the patch tool's form and a window."""
    listing = model_list([ModelInfo("m", "tiny", 4096), ModelInfo("n")], created_at=7)
    assert [entry["id"] for entry in listing["data"]] == ["m", "n"]
    assert listing["data"][0] == {
        "id": "m",
        "object": "model",
        "created": 7,
        "owned_by": "tightloop",
    }
    assert [entry["context_window"] for entry in listing["models"]] == [4096, 32768]
    assert {entry["apply_patch_tool_type"] for entry in listing["models"]} == {"freeform"}


def test_codex_is_asked_to_send_its_tools_once() -> None:
    """That is Lite: seven times fewer bytes a turn, and a response can be interrupted."""
    (entry,) = model_list([ModelInfo("m")], created_at=7)["models"]
    assert entry["use_responses_lite"] is True
    assert entry["base_instructions"] == BASE_INSTRUCTIONS


def test_images_are_offered_only_to_models_that_see() -> None:
    """Codex would otherwise attach what the engine must refuse."""
    models = [ModelInfo("blind"), ModelInfo("seeing", reads_images=True)]
    listing = model_list(models, created_at=7)
    given = [entry["input_modalities"] for entry in listing["models"]]
    assert given == [["text"], ["text", "image"]]


async def test_a_known_listing_is_not_sent_again() -> None:
    """304 for the tag that came with it, whole for any other, and the tag both times."""
    async with server() as url, aiohttp.ClientSession() as http:
        async with http.get(f"{url}/models") as first:
            tag = first.headers["ETag"]
            assert [entry["slug"] for entry in (await first.json())["models"]] == [
                "scripted",
                "hf:a/b/c.gguf@1",
            ]
        async with http.get(f"{url}/models", headers={"If-None-Match": f'"x", {tag}'}) as again:
            assert (again.status, await again.read()) == (304, b"")
            assert again.headers["ETag"] == tag
        async with http.get(f"{url}/models", headers={"If-None-Match": '"other"'}) as other:
            assert (other.status, other.headers["ETag"]) == (200, tag)


async def test_the_sdk_lists_and_retrieves() -> None:
    """A name with slashes is one name; an unknown one is the SDK's NotFoundError."""
    async with (
        server() as url,
        openai.AsyncOpenAI(base_url=url, api_key="unused", max_retries=0) as client,
    ):
        names = [model.id async for model in client.models.list()]
        assert names == ["scripted", "hf:a/b/c.gguf@1"]
        assert [(await client.models.retrieve(name)).id for name in names] == names
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("gpt-9")
        assert caught.value.code == "model_not_found"
        assert "'gpt-9'; this server has scripted" in caught.value.message
