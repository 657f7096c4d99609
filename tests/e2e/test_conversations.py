"""24x: conversations and input items with the official Python SDK, unmodified."""

import signal
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.e2e.conftest import Serve


@pytest.fixture
def sdk(serve: Serve) -> Iterator[openai.OpenAI]:
    """The SDK's client, pointed at a server that repeats what it is told."""
    served = serve("--model", "scripted")
    with openai.OpenAI(base_url=served.url, api_key="none needed", max_retries=0) as client:
        yield client


def user(text: str) -> Any:
    return {"type": "message", "role": "user", "content": text}


def texts(items: Any) -> list[str]:
    """The texts of the messages among the SDK's items, in their order."""
    found = [part.text for item in items if item.type == "message" for part in item.content]
    return [str(text) for text in found]


def test_241_the_life_of_a_conversation(sdk: openai.OpenAI) -> None:
    """Every method of the SDK's resource."""
    made = sdk.conversations.create(items=[user("a")], metadata={"k": "v"})
    assert (made.object, made.metadata) == ("conversation", {"k": "v"})
    assert sdk.conversations.retrieve(made.id) == made
    assert sdk.conversations.update(made.id, metadata={"k": "w"}).metadata == {"k": "w"}
    added = sdk.conversations.items.create(made.id, items=[user("b"), user("c")])
    assert texts(added.data) == ["b", "c"]
    item = sdk.conversations.items.retrieve(added.data[0].id or "", conversation_id=made.id)
    assert item == added.data[0]
    changed = sdk.conversations.items.delete(added.data[0].id or "", conversation_id=made.id)
    assert changed.id == made.id
    assert texts(sdk.conversations.items.list(made.id, order="asc")) == ["a", "c"]
    assert sdk.conversations.delete(made.id).deleted is True
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.conversations.retrieve(made.id)
    assert caught.value.code == "conversation_not_found"


def test_242_the_sdk_pages_through_items(sdk: openai.OpenAI) -> None:
    """Its iterator follows has_more and last_id to the end."""
    made = sdk.conversations.create()
    names = [f"item {n}" for n in range(50)]
    for start in range(0, 50, 20):
        items = [user(name) for name in names[start : start + 20]]
        sdk.conversations.items.create(made.id, items=items)
    pages = sdk.conversations.items.list(made.id, limit=7)
    assert texts(pages) == names[::-1]


def test_243_turns_in_a_conversation_streamed_and_not(sdk: openai.OpenAI) -> None:
    """Input and output join it, also those of an unstored response; the SDK parses all of it."""
    made = sdk.conversations.create(items=[user("rules")])
    first = sdk.responses.create(model="scripted", input="q1", conversation=made.id)
    assert first.conversation is not None
    assert first.conversation.id == made.id
    with sdk.responses.stream(model="scripted", input="q2", conversation=made.id) as stream:
        assert stream.get_final_response().output_text == "echo: q2"
    sdk.responses.create(model="scripted", input="q3", conversation={"id": made.id}, store=False)
    listed = list(sdk.conversations.items.list(made.id, order="asc"))
    assert texts(listed) == ["rules", "q1", "echo: q1", "q2", "echo: q2", "q3", "echo: q3"]


def test_244_a_conversation_on_a_socket(sdk: openai.OpenAI) -> None:
    """The same field, the same items."""
    made = sdk.conversations.create()
    with sdk.responses.connect() as connection:
        for text in ("q1", "q2"):
            connection.response.create(model="scripted", input=text, conversation=made.id)
            for event in connection:
                assert event.type not in ("error", "response.failed"), event
                if event.type == "response.completed":
                    break
    listed = texts(sdk.conversations.items.list(made.id, order="asc"))
    assert listed == ["q1", "echo: q1", "q2", "echo: q2"]


def test_245_input_items(sdk: openai.OpenAI) -> None:
    """Listed page by page; an item that is named by its id is used again."""
    items = [user(f"q{n}") for n in range(5)]
    made = sdk.responses.create(model="scripted", input=items)
    listed = sdk.responses.input_items.list(made.id, limit=2, order="asc")
    assert texts(listed) == ["q0", "q1", "q2", "q3", "q4"]
    reference: Any = {"type": "item_reference", "id": made.output[-1].id}
    second = sdk.responses.create(model="scripted", input=[reference, user("next")])
    listed = sdk.responses.input_items.list(second.id, order="asc")
    assert texts(listed) == ["echo: q4", "next"]
    unknown: Any = [{"type": "item_reference", "id": "msg_none"}]
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(model="scripted", input=unknown)
    assert (caught.value.code, caught.value.param) == ("item_not_found", "input[0].id")


def test_246_a_killed_server_has_lost_nothing(serve: Serve) -> None:
    """Every answered request is there after SIGKILL, and the conversation goes on."""
    served = serve("--model", "scripted")
    with openai.OpenAI(base_url=served.url, api_key="x", max_retries=0) as client:
        made = client.conversations.create(items=[user("rules")], metadata={"k": "v"})
        client.responses.create(model="scripted", input="q1", conversation=made.id, store=False)
        client.conversations.items.create(made.id, items=[user("note")])
        before = list(client.conversations.items.list(made.id))
    served.signal(signal.SIGKILL)
    served = serve("--model", "scripted")
    with openai.OpenAI(base_url=served.url, api_key="x", max_retries=0) as client:
        assert client.conversations.retrieve(made.id) == made
        assert list(client.conversations.items.list(made.id)) == before
        client.responses.create(model="scripted", input="q2", conversation=made.id)
        listed = texts(client.conversations.items.list(made.id, order="asc"))
        assert listed == ["rules", "q1", "echo: q1", "note", "q2", "echo: q2"]


def test_247_a_stream_can_be_resumed_after_a_kill(serve: Serve) -> None:
    """The events of a stored response come back from where its reader stopped, and are the same."""
    served = serve("--model", "scripted")
    with openai.OpenAI(base_url=served.url, api_key="x", max_retries=0) as client:
        events = list(client.responses.create(model="scripted", input="a b c", stream=True))
    served.signal(signal.SIGKILL)
    first = events[0]
    assert first.type == "response.created"
    served = serve("--model", "scripted")
    with openai.OpenAI(base_url=served.url, api_key="x", max_retries=0) as client:
        rest = client.responses.retrieve(first.response.id, stream=True, starting_after=2)
        assert list(rest) == events[3:]
        whole = client.responses.retrieve(first.response.id, stream=True)
        assert list(whole) == events
