"""What decides the beginning of a prompt, as a conversation keeps it."""

from tests.server.wire import Wire
from tightloop.engine.scripted import ScriptedEngine
from tightloop.protocol.requests import decode_request
from tightloop.server.cache_settings import settings_like, settings_of
from tightloop.server.endpoint import Endpoint

BODY = b'{"model":"m","input":"x","tools":[{"type":"function","name":"%b"}]}'


def test_equal_settings_are_one_object() -> None:
    """Else each response of a conversation would hold its tools again."""
    before = settings_of(decode_request(BODY % b"ls"))
    assert settings_like(decode_request(BODY % b"ls"), before) is before
    other = settings_like(decode_request(BODY % b"cat"), before)
    assert settings_of(decode_request(BODY % b"cat")) == other


async def test_the_turns_of_a_conversation_share_their_settings() -> None:
    endpoint = Endpoint(ScriptedEngine())
    wire = Wire(endpoint)
    tools = [{"type": "function", "name": "ls"}]
    wire.create(tools=tools)
    first = (await wire.end())["response"]["id"]
    wire.create(tools=tools, previous_response_id=first)
    second = (await wire.end(2))["response"]["id"]
    records = [endpoint.conversations.recall(name) for name in (first, second)]
    settings = [record.settings for record in records if record is not None]
    assert settings[0] is settings[1]
    await endpoint.close()
