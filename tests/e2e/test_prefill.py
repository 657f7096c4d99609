"""9xx: a tool's output that is sent while the tool runs, through a real server and a real model."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.e2e.conftest import Serve
from tests.e2e.wire import create, open_socket
from tests.engine.gguf_fixture import write_gguf
from tightloop.client.session import Session
from tightloop.client.websocket import WebSocketTransport
from tightloop.protocol.deltas import Usage
from tightloop.protocol.items import FunctionCall, FunctionCallOutput, Item, user_message

PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}
TOOL = {"type": "function", "name": "run", "parameters": PARAMETERS}
TEXT = "then the user said there, in the other one:\n\tthe  users\n" * 40
CAPABILITIES = "X-Tightloop-Capabilities"


class Driven(Session):
    """A session whose model can be made to call the tool, which random weights never would."""

    def choose(self, **fields: Any) -> None:
        self._fixed |= fields


async def finish(session: Session, *items: Item) -> None:
    async with aclosing(session.respond(items)) as events:
        async for _ in events:
            pass


async def called(session: Driven) -> str:
    """The id of the call that the model was made to make."""
    session.choose(tool_choice={"type": "function", "name": "run"}, max_output_tokens=64)
    await finish(session, user_message("go"))
    call = session.items[-1]
    assert isinstance(call, FunctionCall)
    return call.call_id


async def converse(url: str, hint: Callable[[Driven, str], None]) -> tuple[list[Any], Usage]:
    """A call, its output and the answer; without the ids of calls. ``hint`` may tell early."""
    session = Driven(WebSocketTransport(url), model="tiny", tools=[TOOL], store=True)
    other = Driven(WebSocketTransport(url), model="tiny", options={"temperature": 0})
    try:
        await other.connect()
        call_id = await called(session)
        hint(session, call_id)
        # Beside others every step of an answer lets a piece of the hint's prefill on, and this
        # socket was read before: so this answer's end is the end of what was told.
        other.choose(max_output_tokens=64)
        await finish(other, user_message("something else"))
        session.choose(tool_choice="auto", max_output_tokens=16)
        await finish(session, FunctionCallOutput(call_id, TEXT))
        assert session.last is not None
        assert session.last.usage is not None
        items = [item for item in session.items if not isinstance(item, FunctionCall)]
        said = [getattr(item, "text", "") for item in items]
        return said, session.last.usage
    finally:
        await session.close()
        await other.close()


def tell(session: Driven, call_id: str) -> None:
    session.prefill(call_id, "wrong ")
    session.prefill(call_id, TEXT[:1500], keep=0)
    session.prefill(call_id, TEXT[1500:])


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_gguf(tmp_path / "tiny.gguf", num_context=4096))


def test_901_a_server_that_can_says_so(serve: Serve, model: str, tmp_path: Path) -> None:
    """In the header of the upgrade; one whose engine cannot says nothing."""
    own = ("--state-dir", str(tmp_path / "own"))
    with open_socket(serve("--model", model).socket_url) as socket:
        assert socket.response is not None
        assert socket.response.headers[CAPABILITIES] == "response.cancel, response.prefill"
    with open_socket(serve("--model", "scripted", *own).socket_url) as socket:
        assert socket.response is not None
        assert socket.response.headers[CAPABILITIES] == "response.cancel"


def test_902_hints_change_nothing_but_what_is_left_to_read(
    serve: Serve, model: str, tmp_path: Path
) -> None:
    """Two servers of their own, so that neither knows what the other one was told."""
    own = ("--state-dir", str(tmp_path / "own"))
    plain = asyncio.run(converse(serve("--model", model).url, lambda *_: None))
    told = asyncio.run(converse(serve("--model", model, *own).url, tell))
    assert plain[0] == told[0]
    assert plain[1].input_tokens == told[1].input_tokens
    assert plain[1].output_tokens == told[1].output_tokens
    assert plain[1].input_tokens - plain[1].cached_tokens > 500
    assert told[1].input_tokens - told[1].cached_tokens < 400


def test_903_hints_of_any_kind_are_never_answered(serve: Serve, model: str) -> None:
    """Also useless and malformed ones: the next event is the next response's."""
    served = serve("--model", model)
    with open_socket(served.socket_url) as socket:
        first = create(socket, model="tiny", max_output_tokens=16)[-1]
        name = first["response"]["id"]
        for event in (
            {"previous_response_id": name, "call_id": "call_x", "delta": "x"},
            {"previous_response_id": "resp_x", "call_id": "call_x", "delta": "x"},
            {"previous_response_id": 7},
            {"stream_id": "no such lane"},
            {},
        ):
            socket.send(orjson.dumps({"type": "response.prefill", **event}).decode())
        events = create(socket, "more", model="tiny", previous_response_id=name)
        assert events[0]["type"] == "response.created"
        assert events[-1]["type"] in ("response.completed", "response.incomplete")


def test_904_a_server_that_does_not_know_them_gets_none(serve: Serve) -> None:
    """The client looks at the header; the server would refuse the unknown event."""
    served = serve("--model", "scripted")

    async def talk() -> None:
        session = Session(WebSocketTransport(served.url), model="scripted")
        await finish(session, user_message("hi"))
        session.prefill("call_x", TEXT)
        await finish(session, user_message("again"))
        assert session.num_recoveries == 0
        await session.close()

    asyncio.run(talk())
