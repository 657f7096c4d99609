"""711 to 713: connections and servers that die under Codex CLI in the middle of a turn."""

import signal

import pytest

from tests.e2e.codex import Codex
from tests.e2e.conftest import Serve
from tests.e2e.relay import Event, Exchange, Relay, Socket
from tests.e2e.stock_clients import Home
from tests.e2e.test_codex import TWO_TOOLS, Script, answer_ids, check_both_tools, kinds

pytestmark = pytest.mark.timeout(120)


async def test_711_a_connection_killed_in_the_middle_of_an_answer(
    serve: Serve, script: Script, home: Home
) -> None:
    """It connects again and sends everything; then only what is new again; the patch is made once."""
    served = serve("--model", script(TWO_TOOLS))

    def cut(socket: Socket, event: Event) -> bool:
        is_first = socket is relay.sockets[0]
        return is_first and event["type"] == "response.custom_tool_call_input.delta"

    async with Relay(served.url, cut=cut) as relay:
        done = await Codex(home, relay.url, relay.origin).exec()
    check_both_tools(done, home.project)
    first, second = relay.sockets
    assert (first.is_cut, second.is_cut) == (True, False)
    again, last = second.creates
    assert "previous_response_id" not in again
    assert kinds(again)[-2:] == ["function_call", "function_call_output"]
    assert last["previous_response_id"] == answer_ids(second)[0]
    assert kinds(last) == ["custom_tool_call_output"]


async def test_712_an_http_stream_killed_in_the_middle(
    serve: Serve, script: Script, home: Home
) -> None:
    """It asks again with the same input; the patch is made once."""
    served = serve("--model", script(TWO_TOOLS))
    has_cut: list[int] = []

    def cut(exchange: Exchange) -> bool:
        is_time = b"custom_tool_call_input.delta" in exchange.answer and not has_cut
        if is_time:
            has_cut.append(len(relay.posts("/v1/responses")))
        return is_time

    async with Relay(served.url, cut_stream=cut) as relay:
        done = await Codex(home, relay.url, relay.origin, websockets=False).exec()
    check_both_tools(done, home.project)
    assert has_cut == [2]
    _, cut_off, again, _ = (post.json["input"] for post in relay.posts("/v1/responses"))
    assert cut_off == again


async def test_713_a_server_killed_in_the_middle_of_a_turn(
    serve: Serve, script: Script, home: Home
) -> None:
    """kill -9; a new server in its place knows nothing of the conversation and goes on with it."""
    model = script(TWO_TOOLS)
    first = serve("--model", model)

    def replace_server(socket: Socket, event: Event) -> bool:
        is_time = socket is relay.sockets[0] and event["type"].endswith("tool_call_input.delta")
        if is_time:
            first.signal(signal.SIGKILL)
            relay.upstream = serve("--model", model).url
        return is_time

    async with Relay(first.url, cut=replace_server) as relay:
        done = await Codex(home, relay.url, relay.origin).exec()
    check_both_tools(done, home.project)
    assert [socket.is_cut for socket in relay.sockets] == [True, False]
    assert [kinds(create)[-1] for create in relay.sockets[1].creates] == [
        "function_call_output",
        "custom_tool_call_output",
    ]
