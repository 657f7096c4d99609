"""References: what the context holds is not repeated, what is stored is found, the rest is named."""

from pathlib import Path

import pytest
from msgspec import Raw

from tightloop.engine.interface import Node
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import Item, OpaqueItem, user_message
from tightloop.server.conversations import Conversations, Record
from tightloop.server.item_lists import listed
from tightloop.server.item_references import has_references, resolve_references
from tightloop.server.store import Store

RESPONSE_ID = "resp_" + "0123456789abcdef" * 2


def reference(item_id: str) -> OpaqueItem:
    raw = b'{"type":"item_reference","id":"%b"}' % item_id.encode()
    return OpaqueItem("item_reference", Raw(raw))


def record() -> Record:
    node = Node(RESPONSE_ID, None, (user_message("in"), user_message("out")))
    return Record(node, None, num_input=1)


async def opened(path: Path) -> Conversations:
    store = Store(path)
    await store.open()
    return Conversations(store)


async def test_what_the_context_holds_is_left_out() -> None:
    """The model must not read it twice; other items keep their order."""
    parent = record()
    new: tuple[Item, ...] = (user_message("a"), reference(listed(parent.node)[1].id))
    assert has_references(new)
    assert await resolve_references(Conversations(), new, parent) == (user_message("a"),)


@pytest.mark.parametrize("has_store", [False, True])
async def test_an_item_of_a_stored_response_takes_the_place_of_its_reference(
    tmp_path: Path, has_store: bool
) -> None:
    """Named twice, it is said once."""
    conversations = await opened(tmp_path / "db") if has_store else Conversations()
    made = record()
    await conversations.commit(made, b"{}")
    name = reference(listed(made.node)[1].id)
    resolved = await resolve_references(conversations, (name, user_message("a"), name), None)
    assert resolved == (user_message("out"), user_message("a"))
    await conversations.close()


async def test_a_stored_item_is_found_after_a_restart(tmp_path: Path) -> None:
    """The id alone leads to its response; not to a deleted one."""
    first = await opened(tmp_path / "db")
    await first.commit(record(), b"{}")
    await first.close()
    second = await opened(tmp_path / "db")
    name = reference(listed(record().node)[0].id)
    assert await resolve_references(second, (name,), None) == (user_message("in"),)
    await second.delete(RESPONSE_ID)
    with pytest.raises(ApiError, match="no item with id"):
        await resolve_references(second, (name,), None)
    await second.close()


@pytest.mark.parametrize("item_id", ["msg_1", "msg_0123456789abcdefi9", "rs_%_0123456789abcdef"])
async def test_an_unknown_item_is_named(item_id: str) -> None:
    """With the place of the reference."""
    conversations = Conversations()
    await conversations.commit(record(), b"{}")
    with pytest.raises(ApiError, match=item_id) as caught:
        await resolve_references(conversations, (user_message("a"), reference(item_id)), None)
    refused = caught.value
    assert (refused.status, refused.code) == (400, "item_not_found")
    assert refused.param == "input[1].id"


async def test_a_reference_without_an_id_is_refused() -> None:
    """By the field that is missing."""
    bad = OpaqueItem("item_reference", Raw(b'{"type":"item_reference"}'))
    with pytest.raises(ApiError) as caught:
        await resolve_references(Conversations(), (bad,), None)
    assert caught.value.param == "input[0].id"
