"""What a turn starts from; conversations on a socket, one turn at a time, and abandoned ones."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from tests.server.wire import Wire, text_of
from tightloop.engine.interface import Node
from tightloop.engine.scripted import Answer, Hold, ScriptedEngine, in_turn, text_answer
from tightloop.protocol.deltas import Finished, FinishReason, TextDelta, Usage
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import user_message
from tightloop.protocol.requests import decode_request
from tightloop.server.conversations import Record
from tightloop.server.endpoint import Endpoint
from tightloop.server.openings import look_up, needs_opening, open_turn
from tightloop.server.store import Store


def endpoint(*answers: Answer) -> Endpoint:
    return Endpoint(ScriptedEngine(in_turn(answers)))


async def texts(server: Endpoint, conversation_id: str) -> list[str]:
    found = await server.book.get(conversation_id)
    return [getattr(entry.item, "text", "") for entry in found.entries]


async def test_a_plain_request_needs_no_opening() -> None:
    """Its turn begins in the tick in which it arrived."""
    plain = decode_request(b'{"model":"m","input":"x","previous_response_id":"resp_1"}')
    in_one = decode_request(b'{"model":"m","input":"x","conversation":"conv_1"}')
    refers = decode_request(b'{"model":"m","input":[{"type":"item_reference","id":"x"}]}')
    assert [needs_opening(request) for request in (plain, in_one, refers)] == [False, True, True]


async def test_a_parent_is_looked_up_unless_it_is_known() -> None:
    """And refused by name when there is none."""
    server = endpoint()
    request = decode_request(b'{"model":"m","input":"x","previous_response_id":"resp_1"}')
    known = Record(Node("resp_1", None, (user_message("x"),)), None, 1)
    assert (await open_turn(server.backstage, request, known)).parent is known
    with pytest.raises(ApiError) as caught:
        await open_turn(server.backstage, request)
    assert caught.value.code == "previous_response_not_found"


async def test_a_conversation_can_be_read_while_it_is_held() -> None:
    """To count its tokens; an unknown one is refused there too."""
    server = endpoint()
    made = await server.book.create((user_message("x"),), {})
    body = '{"model":"m","input":"y","conversation":"%s"}'
    with await server.book.hold(made.id) as hold:
        opening = await look_up(server.backstage, decode_request(body % made.id))
        assert opening.parent is hold.head
        assert opening.hold is None
    with pytest.raises(ApiError) as caught:
        await look_up(server.backstage, decode_request(body % "conv_none"))
    assert caught.value.code == "conversation_not_found"


async def test_a_conversation_on_a_socket() -> None:
    """Stored or not; a lane waits for its own turns, so nothing is refused."""
    server = endpoint([TextDelta("a1")], [TextDelta("a2")])
    made = await server.book.create((user_message("rules"),), {})
    wire = Wire(server)
    wire.create("q1", conversation=made.id, store=False)
    wire.create("q2", conversation={"id": made.id})
    assert (await wire.end(1))["response"]["conversation"] == {"id": made.id}
    assert text_of(await wire.end(2)) == "a2"
    assert await texts(server, made.id) == ["rules", "q1", "a1", "q2", "a2"]
    await server.close()


async def test_another_lane_is_refused_while_a_turn_runs() -> None:
    """With a hint when to come back; afterwards it may."""
    hold = Hold()
    server = endpoint([TextDelta("a1"), hold], [TextDelta("a2")])
    made = await server.book.create((), {})
    wire = Wire(server)
    wire.create("q1", conversation=made.id, stream_id="one")
    await hold.reached.wait()
    wire.create("q2", conversation=made.id, stream_id="two")
    refused = await wire.end(1)
    assert (refused["status"], refused["error"]["code"]) == (409, "conversation_locked")
    assert (refused["headers"], refused["stream_id"]) == ({"retry-after": "1"}, "two")
    hold.release.set()
    await wire.end(2)
    wire.create("q3", conversation=made.id, stream_id="two")
    await wire.end(3)
    assert await texts(server, made.id) == ["q1", "a1", "q3", "a2"]
    await server.close()


async def test_an_incomplete_response_is_part_of_the_conversation() -> None:
    """What was said was said."""
    hold = Hold()
    server = endpoint([TextDelta("half"), hold])
    made = await server.book.create((), {})
    wire = Wire(server)
    wire.create("q1", conversation=made.id)
    await hold.reached.wait()
    wire.send({"type": "response.cancel"})
    assert (await wire.end())["type"] == "response.incomplete"
    assert await texts(server, made.id) == ["q1", "half"]
    await server.close()


async def test_a_failed_response_leaves_the_conversation_as_it_was() -> None:
    """And open for the next one."""
    failed = Finished(FinishReason.ERROR, Usage(), error_code="server_error", error_message="no")
    server = endpoint([TextDelta("a1"), failed], [TextDelta("a2")])
    made = await server.book.create((), {})
    wire = Wire(server)
    wire.create("q1", conversation=made.id)
    assert (await wire.end(1))["type"] == "response.failed"
    wire.create("q2", conversation=made.id)
    await wire.end(2)
    assert await texts(server, made.id) == ["q2", "a2"]
    await server.close()


async def test_a_client_that_comes_back_is_not_refused_by_its_abandoned_response() -> None:
    """It is ended first; what it had said is kept."""
    hold = Hold()
    server = endpoint([TextDelta("half"), hold], text_answer("whole"))
    made = await server.book.create((), {})
    lost = Wire(server)
    lost.create("q1", conversation=made.id)
    await hold.reached.wait()
    lost.session.close(is_goodbye=False)
    back = Wire(server)
    back.create("q2", conversation=made.id)
    assert text_of(await back.end()) == "whole"
    assert await texts(server, made.id) == ["q1", "half", "q2", "whole"]
    await server.close()


async def test_a_connection_that_closes_while_a_turn_is_opened_lets_the_conversation_go() -> None:
    """The turn never began."""
    server = endpoint([TextDelta("a1")])
    made = await server.book.create((), {})
    wire = Wire(server)
    wire.create("q1", conversation=made.id)
    wire.session.close()
    await asyncio.sleep(0)  # the opening ends, without a turn
    await asyncio.sleep(0)
    (await server.book.hold(made.id)).release()
    assert await texts(server, made.id) == []
    await server.close()


async def test_a_conversation_that_cannot_be_kept_fails_the_response(tmp_path: Path) -> None:
    """Also an unstored one: its place in the conversation was promised."""
    server = Endpoint(ScriptedEngine(in_turn([[TextDelta("a1")]])), Store(tmp_path / "db"))
    await server.start()
    made = await server.book.create((), {})
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute("ALTER TABLE responses RENAME TO lost")
    connection.close()
    wire = Wire(server)
    wire.create("q1", conversation=made.id, store=False)
    end = await wire.end()
    assert (end["type"], end["response"]["error"]["code"]) == ("response.failed", "store_failed")
    assert await texts(server, made.id) == []
    (await server.book.hold(made.id)).release()
    await server.close()


async def test_a_server_is_drained_when_what_was_opened_is_answered() -> None:
    """A create whose parent is still being looked up is not forgotten by an orderly end."""
    server = endpoint([TextDelta("a1")])
    wire = Wire(server)
    wire.create("q1", previous_response_id="resp_none")
    wire.create("q2")
    await server.backstage.drained()
    assert [event["type"] for event in wire.ends()] == ["error", "response.completed"]
    await server.close()
