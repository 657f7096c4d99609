"""The routes of conversations, over HTTP: shapes, pages, limits, and turns inside them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio

from tightloop.engine.scripted import ScriptedEngine, echo_script
from tightloop.governance.keys import KeyRing
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.server.store import Store


class Client:
    """A server with a disk, and an HTTP client to it."""

    def __init__(self, endpoint: Endpoint, url: str, http: aiohttp.ClientSession) -> None:
        self.endpoint = endpoint
        self._url = url
        self._http = http

    async def call(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        async with self._http.request(method, self._url + path, **options) as response:
            body = await response.read()
            assert response.status == status, body[:300]
            return orjson.loads(body)

    async def refused(self, method: str, path: str, status: int, **options: Any) -> Any:
        """Code and param of the refusal."""
        error = (await self.call(method, path, status, **options))["error"]
        return error["code"], error["param"]

    async def new(self, *texts: str, **fields: Any) -> str:
        """The id of a new conversation with these user messages."""
        items = [message(text) for text in texts]
        made = await self.call("POST", "/conversations", json={"items": items, **fields})
        return str(made["id"])

    async def texts(self, path: str) -> list[str]:
        """The texts of all messages listed there, oldest first."""
        page = await self.call("GET", f"{path}?order=asc&limit=100")
        assert page["has_more"] is False
        return [part["text"] for item in page["data"] for part in item.get("content", ())]

    async def create(self, status: int = 200, **fields: Any) -> Any:
        body = {"model": "scripted", "input": "hi", **fields}
        return await self.call("POST", "/responses", status, json=body)


def message(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    endpoint = Endpoint(ScriptedEngine(echo_script), Store(tmp_path / "db"))
    server = Server(endpoint, Access(KeyRing(()), "127.0.0.1"), host="127.0.0.1", port=0)
    url = await server.start()
    async with aiohttp.ClientSession() as http:
        yield Client(endpoint, url, http)
    await server.stop(grace_s=0)


async def test_the_life_of_a_conversation(client: Client) -> None:
    """Made, read, changed, deleted, gone."""
    made = await client.call("POST", "/conversations", json={"metadata": {"a": "b"}})
    assert made == {
        "id": made["id"],
        "object": "conversation",
        "created_at": made["created_at"],
        "metadata": {"a": "b"},
    }
    path = f"/conversations/{made['id']}"
    assert await client.call("GET", path) == made
    changed = {**made, "metadata": {"c": "d"}}
    assert await client.call("POST", path, json={"metadata": {"c": "d"}}) == changed
    assert await client.call("GET", path) == changed
    gone = {"id": made["id"], "object": "conversation.deleted", "deleted": True}
    assert await client.call("DELETE", path) == gone
    for method in ("GET", "DELETE"):
        refused = await client.refused(method, path, 404)
        assert refused == ("conversation_not_found", "conversation")


async def test_a_conversation_can_be_made_of_nothing(client: Client) -> None:
    """No body at all, null fields."""
    assert (await client.call("POST", "/conversations"))["metadata"] == {}
    nothing = {"items": None, "metadata": None}
    made = await client.call("POST", "/conversations", json=nothing)
    page = await client.call("GET", f"/conversations/{made['id']}/items")
    assert page == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


async def test_items_are_added_listed_fetched_and_taken_out(client: Client) -> None:
    """Under the ids that the first answer gave."""
    path = f"/conversations/{await client.new('one')}/items"
    added = await client.call("POST", path, json={"items": [message("two"), message("three")]})
    assert (added["first_id"], added["last_id"]) == tuple(item["id"] for item in added["data"])
    assert await client.texts(path) == ["one", "two", "three"]
    item_path = f"{path}/{added['first_id']}"
    assert await client.call("GET", item_path) == added["data"][0]
    conversation = await client.call("DELETE", item_path)
    assert conversation["object"] == "conversation"
    assert await client.texts(path) == ["one", "three"]
    assert await client.refused("GET", item_path, 404) == ("item_not_found", "item_id")
    assert await client.refused("DELETE", item_path, 404) == ("item_not_found", "item_id")


async def test_pages_follow_one_another(client: Client) -> None:
    """Newest first, with last_id as the next after."""
    path = f"/conversations/{await client.new('a', 'b', 'c')}/items"
    first = await client.call("GET", f"{path}?limit=2")
    assert [item["content"][0]["text"] for item in first["data"]] == ["c", "b"]
    assert first["has_more"] is True
    second = await client.call("GET", f"{path}?limit=2&after={first['last_id']}")
    assert [item["content"][0]["text"] for item in second["data"]] == ["a"]
    assert second["has_more"] is False


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"items": [message("x")] * 21}, "invalid_value", "items"),
        ({"items": "x"}, "invalid_type", "items"),
        ({"items": [{"type": "message"}]}, "missing_required_parameter", "items[0].role"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "invalid_value", "metadata"),
        ({"metadata": {"k" * 65: "x"}}, "invalid_value", "metadata"),
        ({"metadata": {"k": "x" * 513}}, "invalid_value", "metadata"),
        (
            {"items": [{"type": "item_reference", "id": "msg_none"}]},
            "item_not_found",
            "items[0].id",
        ),
    ],
)
async def test_a_bad_conversation_is_refused_by_name(
    client: Client, body: dict[str, Any], code: str, param: str
) -> None:
    """The limits of the API: 20 items, 16 pairs of 64 and 512 characters."""
    assert await client.refused("POST", "/conversations", 400, json=body) == (code, param)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"items":[{"type":"\xff"}]}', b""])
async def test_a_body_that_cannot_be_read_is_refused(client: Client, body: bytes) -> None:
    """Never a server error."""
    path = f"/conversations/{await client.new()}/items"
    await client.refused("POST", path, 400, data=body)


async def test_half_a_character_is_replaced(client: Client) -> None:
    """As in every other request."""
    body = b'{"items":[{"role":"user","content":"a\\ud83d"}]}'
    made = await client.call("POST", "/conversations", data=body)
    assert await client.texts(f"/conversations/{made['id']}/items") == ["a\ufffd"]


@pytest.mark.parametrize("store", [True, False])
async def test_responses_in_a_conversation_follow_one_another(client: Client, store: bool) -> None:
    """Each sees what came before; input and output are added, also unstored ones."""
    conversation_id = await client.new("rules")
    first = await client.create(conversation=conversation_id, input="one", store=store)
    assert first["conversation"] == {"id": conversation_id}
    await client.create(conversation={"id": conversation_id}, input="two", store=store)
    path = f"/conversations/{conversation_id}/items"
    expected = ["rules", "one", "echo: one", "two", "echo: two"]
    assert await client.texts(path) == expected
    stored = await client.endpoint.conversations.body(first["id"])
    assert (stored is not None) is store
    page = await client.call("GET", f"{path}?order=asc")
    assert page["data"][2]["id"] == first["output"][0]["id"]


async def test_a_turn_in_a_conversation_has_the_last_response_as_its_parent(
    client: Client,
) -> None:
    """So that what it costs does not grow."""
    conversation_id = await client.new("rules")
    ids = [(await client.create(conversation=conversation_id))["id"] for _ in range(3)]
    head = (await client.endpoint.backstage.book.get(conversation_id)).head
    chain = []
    while head is not None:
        chain.append(head.node.id)
        head = head.parent
    assert chain[:3] == ids[::-1]
    assert len(chain) == 4


async def test_an_unknown_conversation_is_refused(client: Client) -> None:
    """Before anything is generated; and not together with a parent."""
    refused = (await client.create(404, conversation="conv_none"))["error"]
    assert (refused["code"], refused["param"]) == ("conversation_not_found", "conversation")
    both = await client.create(400, conversation="conv_none", previous_response_id="resp_none")
    assert both["error"]["param"] == "conversation"


async def test_a_refused_turn_lets_the_conversation_go(client: Client) -> None:
    """An unknown model, an output without its call, an unknown item."""
    conversation_id = await client.new("rules")
    bad: list[dict[str, Any]] = [
        {"model": "none"},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
        {"input": [{"type": "item_reference", "id": "msg_none"}]},
    ]
    for fields in bad:
        await client.create(400, conversation=conversation_id, **fields)
    await client.create(conversation=conversation_id, input="one")
    path = f"/conversations/{conversation_id}/items"
    assert await client.texts(path) == ["rules", "one", "echo: one"]


async def test_a_prewarm_changes_no_conversation(client: Client) -> None:
    """It is a hint."""
    conversation_id = await client.new("rules")
    await client.create(conversation=conversation_id, generate=False)
    assert await client.texts(f"/conversations/{conversation_id}/items") == ["rules"]


async def test_a_reference_to_an_item_stands_for_it(client: Client) -> None:
    """One of a stored response is put in its place; one of the context is not repeated."""
    first = await client.create(input="one")
    reference = {"type": "item_reference", "id": first["output"][0]["id"]}
    second = await client.create(input=[reference, message("two")])
    listed = f"/responses/{second['id']}/input_items"
    assert await client.texts(listed) == ["echo: one", "two"]
    third = await client.create(
        input=[reference, message("three")], previous_response_id=first["id"]
    )
    assert await client.texts(f"/responses/{third['id']}/input_items") == ["three"]


async def test_the_tokens_of_a_turn_in_a_conversation_can_be_counted(client: Client) -> None:
    """With what the conversation holds; it stays as it is."""
    conversation_id = await client.new("rules " * 50)
    body = {"model": "scripted", "input": "hi"}
    alone = await client.call("POST", "/responses/input_tokens", json=body)
    inside = await client.call(
        "POST", "/responses/input_tokens", json={**body, "conversation": conversation_id}
    )
    assert inside["input_tokens"] > alone["input_tokens"]
    assert len(await client.texts(f"/conversations/{conversation_id}/items")) == 1


async def test_a_conversation_can_be_summed_up(client: Client) -> None:
    """What was asked for: the messages worth keeping and the summary take the place of the rest."""
    conversation_id = await client.new("rules")
    await client.create(conversation=conversation_id, input="one")
    await client.create(
        conversation=conversation_id, input=[message("two"), {"type": "compaction_trigger"}]
    )
    path = f"/conversations/{conversation_id}/items?order=asc"
    types = [item["type"] for item in (await client.call("GET", path))["data"]]
    assert types[-1] == "compaction"
    assert "echo: one" not in await client.texts(f"/conversations/{conversation_id}/items")
    after = await client.create(conversation=conversation_id, input="three")
    assert after["output"][0]["content"][0]["text"] == "echo: three"
    types = [item["type"] for item in (await client.call("GET", path))["data"]]
    assert types[-3:] == ["compaction", "message", "message"]
