"""What a response was asked with can be listed, in memory and from disk."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tightloop.engine.scripted import ScriptedEngine, in_turn, text_answer
from tightloop.governance.keys import KeyRing
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.server.store import Store

INPUT = [
    {"type": "message", "role": "user", "content": "one"},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "id": "fc_own"},
    {"type": "function_call_output", "call_id": "c", "output": "two"},
]


class Client:
    """A server and an HTTP client to it."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = url
        self._http = http

    async def create(self, **fields: Any) -> str:
        body = {"model": "scripted", **fields}
        async with self._http.post(f"{self._url}/responses", json=body) as response:
            assert response.status == 200
            return str((await response.json())["id"])

    async def items(self, response_id: str, query: str = "", status: int = 200) -> Any:
        url = f"{self._url}/responses/{response_id}/input_items{query}"
        async with self._http.get(url) as response:
            assert response.status == status
            return await response.json()


@asynccontextmanager
async def client(store: Store | None) -> AsyncIterator[Client]:
    endpoint = Endpoint(ScriptedEngine(in_turn([text_answer("a1"), text_answer("a2")])), store)
    server = Server(endpoint, Access(KeyRing(()), "127.0.0.1"), host="127.0.0.1", port=0)
    url = await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield Client(url, http)
    finally:
        await server.stop(grace_s=0)


@pytest.mark.parametrize("has_store", [False, True])
async def test_the_new_input_of_a_response_is_listed(tmp_path: Path, has_store: bool) -> None:
    """Not its output, nor what its parents hold; with ids, the client's own among them."""
    async with client(Store(tmp_path / "db") if has_store else None) as c:
        first = await c.create(input=INPUT)
        second = await c.create(input="three", previous_response_id=first)
        page = await c.items(first, "?order=asc")
        key = first[5:21]
        assert [item["id"] for item in page["data"]] == [f"msg_{key}i0", "fc_own", f"fco_{key}i2"]
        assert [item["status"] for item in page["data"]] == ["completed"] * 3
        assert (page["object"], page["has_more"]) == ("list", False)
        following = await c.items(second)
        assert [item["content"][0]["text"] for item in following["data"]] == ["three"]


async def test_pages_are_the_same_after_a_restart(tmp_path: Path) -> None:
    """Ids are made of what is stored; the cursor of before is good."""
    async with client(Store(tmp_path / "db")) as c:
        response_id = await c.create(input=INPUT)
        before = await c.items(response_id, "?limit=1")
        assert before["has_more"] is True
    async with client(Store(tmp_path / "db")) as c:
        assert await c.items(response_id, "?limit=1") == before
        rest = await c.items(response_id, f"?after={before['last_id']}")
        assert [item["type"] for item in rest["data"]] == ["function_call", "message"]


@pytest.mark.parametrize("has_store", [False, True])
async def test_only_stored_responses_have_input_items(tmp_path: Path, has_store: bool) -> None:
    """An unstored one is as unknown as any other."""
    async with client(Store(tmp_path / "db") if has_store else None) as c:
        unstored = await c.create(input="x", store=False)
        for name in (unstored, "resp_none"):
            error = (await c.items(name, status=404))["error"]
            assert (error["code"], error["param"]) == ("response_not_found", "id")


async def test_a_bad_query_is_refused() -> None:
    """By the parameter at fault."""
    async with client(None) as c:
        response_id = await c.create(input="x")
        for query, param in (("?limit=0", "limit"), ("?after=msg_none", "after")):
            error = (await c.items(response_id, query, 400))["error"]
            assert error["param"] == param
