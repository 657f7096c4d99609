"""Responses over a WebSocket, against a real server of ours."""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.client.raw_peer import CREATED, DONE, Peer, delta, events, scripted
from tests.engine.collecting import ask, request, start
from tests.engine.remote.conftest import Tls
from tests.engine.remote.peers import Upstream, node, upstream
from tightloop.engine.interface import GenerationRequest, Node, Sampling
from tightloop.engine.remote import RemoteEngine, RemoteOptions, connecting
from tightloop.engine.remote import sockets as sockets_module
from tightloop.engine.remote.sockets import ResponsesSockets
from tightloop.engine.scripted import Answer, Hold, call_answer, in_turn, text_answer
from tightloop.protocol.compaction import Summary, seal
from tightloop.protocol.deltas import (
    Delta,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    Usage,
)
from tightloop.protocol.items import (
    Compaction,
    CustomToolCallOutput,
    FunctionCallOutput,
    Item,
    Message,
    TextPart,
    user_message,
)
from tightloop.protocol.output_format import OutputFormat
from tightloop.protocol.requests import CustomTool, FunctionTool

TOOLS = (
    FunctionTool("run", parameters={"type": "object"}),
    CustomTool("patch", "edits", "start: /x/"),
)


def sockets(peer: Upstream) -> ResponsesSockets:
    api = peer.engine.api
    assert isinstance(api, ResponsesSockets)
    return api


def texts(asked: GenerationRequest) -> list[str]:
    return [item.text for item in asked.context() if isinstance(item, Message)]


async def test_a_turn_sends_its_new_items_only() -> None:
    """The upstream knows the rest by its own id; it has the whole context all the same."""
    async with upstream(api="responses-ws") as peer:
        parent: Node | None = None
        for n in range(4):
            asked = request(f"turn {n}", name=f"resp_{n}", parent=parent)
            parent = node(asked, await ask(peer.engine, asked))
        assert [len(told.items) for told in peer.asked] == [1, 1, 1, 1]
        assert [f"turn {0}", "echo: turn 0"] == texts(peer.asked[-1])[:2]
        assert len(texts(peer.asked[-1])) == 7
        api = sockets(peer)
        assert (api.num_whole, api.num_incremental) == (1, 3)
        assert api.num_idle == 1


async def test_tool_calls_go_round() -> None:
    """Functions, free text, reasoning; the outputs continue the response that called."""
    script = in_turn(
        [
            [
                ReasoningDelta("hm"),
                TextDelta("I look."),
                *call_answer("run", {"cmd": "ls"}, "c1"),
                *call_answer("patch", "a\nb", "c2"),
            ],
            text_answer("done"),
        ]
    )
    async with upstream(script, api="responses-ws") as peer:
        asked = request("go", name="r1", tools=TOOLS)
        answer = await ask(peer.engine, asked)
        assert FinishReason.TOOL_CALLS is answer.finished.reason
        assert (answer.reasoning, answer.text) == ("hm", "I look.")
        assert answer.calls == [("run", '{"cmd":"ls"}'), ("patch", "a\nb")]
        outputs: list[Item] = [FunctionCallOutput("c1", "x.py"), CustomToolCallOutput("c2", "ok")]
        more = request(outputs, name="r2", tools=TOOLS, parent=node(asked, answer))
        assert (await ask(peer.engine, more)).text == "done"
        assert tuple(outputs) == peer.asked[1].items
        assert peer.asked[1].tools == TOOLS
        assert sockets(peer).num_incremental == 1


async def test_settings_are_passed_on() -> None:
    async with upstream(api="responses-ws") as peer:
        asked = replace(
            request("hi", tools=TOOLS, tool_choice="patch", sampling=Sampling(0.5, 0.9, 3)),
            instructions="be brief",
            max_output_tokens=99,
            parallel_tool_calls=False,
            reasoning_effort="low",
            output_format=OutputFormat("json_schema", {"type": "object"}, "x", True),
            cache_key="session-1",
            service_tier="priority",
        )
        await ask(peer.engine, asked)
    (told,) = peer.asked
    for name in (
        "instructions", "tools", "tool_choice", "sampling", "max_output_tokens", "cache_key",
        "parallel_tool_calls", "reasoning_effort", "output_format", "service_tier",
    ):  # fmt: skip
        assert getattr(asked, name) == getattr(told, name), name


async def test_what_only_a_chat_can_say_is_said_in_one() -> None:
    async with upstream(api="responses-ws") as peer:
        await ask(peer.engine, request("hi", sampling=Sampling(stop=("END",))))
        await ask(peer.engine, request("hi", name="r2", max_output_tokens=5))
        assert peer.asked[0].sampling.stop == ("END",)
        assert peer.asked[1].max_output_tokens == 5
        assert sockets(peer).num_whole == 0


async def test_a_lost_parent_is_sent_whole_once() -> None:
    """Here every socket was cut while the tool ran."""
    async with upstream(api="responses-ws") as peer:
        first = request("one", name="r1")
        parent = node(first, await ask(peer.engine, first))
        peer.server.abort_connections()
        second = request("two", name="r2", parent=parent)
        grown = node(second, await ask(peer.engine, second))
        assert texts(peer.asked[-1]) == ["one", "echo: one", "two"]
        third = request("three", name="r3", parent=grown)
        assert (await ask(peer.engine, third)).text == "echo: three"
        assert len(peer.asked[-1].items) == 1
        assert sockets(peer).num_whole == 2


async def test_a_conversation_that_differs_is_sent_whole() -> None:
    """The server dropped half of an answer, or another one took its place."""
    async with upstream(api="responses-ws") as peer:
        first = request("one", name="r1")
        await ask(peer.engine, first)
        said = Message("assistant", (TextPart("output_text", "something else"),))
        other = Node("r1", None, (*first.items, said))
        await ask(peer.engine, request("two", name="r2", parent=other))
        assert texts(peer.asked[-1]) == ["one", "something else", "two"]
        assert (sockets(peer).num_whole, sockets(peer).num_incremental) == (2, 0)


async def test_steps_that_were_made_elsewhere_are_caught_up() -> None:
    """Another host answered one turn of the conversation."""
    async with upstream(api="responses-ws") as peer:
        first = request("one", name="r1")
        parent = node(first, await ask(peer.engine, first))
        said = Message("assistant", (TextPart("output_text", "elsewhere"),))
        elsewhere = Node("r2", parent, (user_message("two"), said))
        await ask(peer.engine, request("three", name="r3", parent=elsewhere))
        assert texts(peer.asked[-1]) == ["one", "echo: one", "two", "elsewhere", "three"]
        assert len(peer.asked[-1].items) == 3
        assert sockets(peer).num_incremental == 1


async def test_a_summary_takes_the_place_of_what_it_hides() -> None:
    async with upstream(api="responses-ws") as peer:
        first = request("secret", name="r1")
        parent = node(first, await ask(peer.engine, first))
        summary = Compaction(seal(Summary("short", hides_earlier=True)))
        items: list[Item] = [summary, user_message("on")]
        await ask(peer.engine, request(items, name="r2", parent=parent))
        assert "secret" not in "".join(texts(peer.asked[-1]))
        assert sockets(peer).num_whole == 2


async def test_conversations_have_sockets_of_their_own() -> None:
    """Many at a time, each continued on its own, none waiting for another."""
    gate = asyncio.Event()
    holds = [Hold(gate) for _ in range(5)]
    waiting = list(holds)

    def script(asked: GenerationRequest) -> Answer:
        first = [waiting.pop()] if asked.parent is None else []
        return [*first, TextDelta(f"to {texts(asked)[-1]}")]

    async with upstream(script, api="responses-ws") as peer:
        firsts = [request(f"q{n}", name=f"a{n}") for n in range(5)]
        answers = [start(peer.engine, asked) for asked in firsts]
        for hold in holds:
            await hold.reached.wait()
        gate.set()
        for answer in answers:
            await answer.wait()
        nodes = [node(*pair) for pair in zip(firsts, answers, strict=True)]
        seconds = [request(f"p{n}", name=f"b{n}", parent=nodes[n]) for n in range(5)]
        later = [start(peer.engine, asked) for asked in seconds]
        for n, answer in enumerate(later):
            await answer.wait()
            assert f"to p{n}" == answer.text
        assert (sockets(peer).num_whole, sockets(peer).num_incremental) == (5, 5)
        assert sockets(peer).num_idle == 5


async def test_a_second_child_of_a_node_is_sent_whole() -> None:
    async with upstream(api="responses-ws") as peer:
        first = request("one", name="r1")
        parent = node(first, await ask(peer.engine, first))
        await ask(peer.engine, request("two", name="r2", parent=parent))
        answer = await ask(peer.engine, request("fork", name="r3", parent=parent))
        assert answer.text == "echo: fork"
        assert texts(peer.asked[-1]) == ["one", "echo: one", "fork"]


async def test_cancel_stops_the_upstream() -> None:
    """The conversation goes on afterwards, on another socket."""
    hold = Hold()
    script = in_turn([[TextDelta("a"), hold, TextDelta("b")], text_answer("after")])
    async with upstream(script, api="responses-ws") as peer:
        asked = request("one", name="r1")
        answer = start(peer.engine, asked)
        await answer.first.wait()
        assert answer.generation is not None
        answer.generation.cancel()
        assert FinishReason.CANCELLED is (await answer.wait()).reason
        assert answer.text == "a"
        more = request("two", name="r2", parent=node(asked, answer))
        assert (await ask(peer.engine, more)).text == "after"
        assert sockets(peer).num_whole == 2


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([Finished(FinishReason.ERROR, Usage(), None, "content_filter", "no")], "content_filter"),
        ([TextDelta("a"), Finished(FinishReason.ERROR, Usage(), None, "boom", "died")], "boom"),
    ],
)
async def test_failures_name_the_host(said: Sequence[Any], code: str) -> None:
    async with upstream(in_turn([said, text_answer("ok")]), api="responses-ws") as peer:
        asked = request("one", name="r1")
        done = (await ask(peer.engine, asked)).finished
        assert (FinishReason.ERROR, code) == (done.reason, done.error_code)
        assert "(model scripted)" in str(done.error_message)
        assert (await ask(peer.engine, request("two", name="r2"))).text == "ok"


async def test_a_refusal_leaves_the_socket_usable() -> None:
    async with upstream(api="responses-ws", model="nobody") as peer:
        done = (await ask(peer.engine, request("one"))).finished
        assert done.error_code == "model_not_found"
        assert "answered 400: unknown model 'nobody'" in str(done.error_message)
        assert sockets(peer).num_idle == 0


async def test_lengths_usage_and_times_come_through() -> None:
    usage = Usage(10, 8, 5, 2)
    finished = Finished(FinishReason.LENGTH, usage)
    async with upstream(in_turn([[TextDelta("a"), finished]]), api="responses-ws") as peer:
        done = (await ask(peer.engine, request("one"))).finished
    assert (FinishReason.LENGTH, usage) == (done.reason, done.usage)
    assert done.timing is not None
    assert done.timing.num_prefill_tokens == 2
    assert done.timing.submitted_ns <= done.timing.first_delta_ns <= done.timing.finished_ns


async def test_idle_sockets_are_bounded() -> None:
    async with upstream(api="responses-ws", max_sockets=2) as peer:
        for n in range(4):
            await ask(peer.engine, request("hi", name=f"r{n}"))
        assert sockets(peer).num_idle == 2


async def test_a_socket_that_is_idle_for_long_is_closed() -> None:
    async with upstream(api="responses-ws", idle_s=0.0) as peer:
        first = request("one", name="r1")
        parent = node(first, await ask(peer.engine, first))
        for _ in range(3):  # its timer is due in the next steps of the loop
            await asyncio.sleep(0)
        assert sockets(peer).num_idle == 0
        await ask(peer.engine, request("two", name="r2", parent=parent))
        assert texts(peer.asked[-1]) == ["one", "echo: one", "two"]
        assert sockets(peer).num_whole == 2


async def test_sockets_have_the_congestion_control_asked_for() -> None:
    """And are watched by the kernel, as those for HTTP."""
    async with upstream(api="responses-ws", congestion="reno") as peer:
        spare = sockets(peer)._spare
        assert spare is not None
        assert spare.transport._line is not None
        made = spare.transport._line.transport.get_extra_info("socket")
        name = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        assert name.rstrip(b"\0") == b"reno"
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_a_spare_socket_that_was_lost_is_replaced() -> None:
    async with upstream(api="responses-ws") as peer:
        peer.server.abort_connections()
        assert (await ask(peer.engine, request("hi"))).text == "echo: hi"


async def test_a_host_without_websocket_is_spoken_to_over_chat() -> None:
    """That is what auto is for; whoever demands a socket is told."""
    nowhere = "http://127.0.0.1:1/v1"
    relaxed = RemoteEngine("m", nowhere, options=RemoteOptions(api="auto"))
    await relaxed.start()
    assert not isinstance(relaxed.api, ResponsesSockets)
    await relaxed.close()
    strict = RemoteEngine("m", nowhere, options=RemoteOptions(api="responses-ws"))
    await strict.start()
    done = (await ask(strict, request("hi"))).finished
    assert done.error_code == "upstream_error"
    assert nowhere in str(done.error_message)
    await strict.close()


async def test_a_host_that_never_answers_does_not_hold_up_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor the end: a socket that is still being made is given up."""
    monkeypatch.setattr(connecting, "TRY_SOCKET_S", 0.0)
    writers: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/v1"
    for api, is_socket in (("auto", False), ("responses-ws", True)):
        engine = RemoteEngine("m", url, options=RemoteOptions(api=api, warm=0))
        await engine.start()
        assert isinstance(engine.api, ResponsesSockets) == is_socket
        answer = start(engine, request("hi"))
        await engine.close()
        assert answer.finished.reason is FinishReason.CANCELLED
    silent.close()
    for writer in writers:
        writer.close()


async def test_silence_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer ends in an error, and the next one goes over another socket."""
    hold = Hold()
    script = in_turn([[TextDelta("a"), hold], text_answer("ok")])
    async with upstream(script, api="responses-ws") as peer:
        monkeypatch.setattr(sockets_module, "SILENCE_TIMEOUT_S", 0.2)
        answer = await ask(peer.engine, request("one"))
        monkeypatch.undo()
        assert (answer.text, answer.finished.error_code) == ("a", "upstream_timeout")
        assert "silent for too long" in str(answer.finished.error_message)
        assert (await ask(peer.engine, request("two", name="r2"))).text == "ok"


async def test_auto_finds_the_socket() -> None:
    async with upstream(api="auto") as peer:
        assert (await ask(peer.engine, request("hi"))).text == "echo: hi"
        assert sockets(peer).num_whole == 1


async def test_close_ends_what_runs() -> None:
    hold = Hold()
    async with upstream(in_turn([[TextDelta("a"), hold]]), api="responses-ws") as peer:
        answer = start(peer.engine, request("one"))
        await answer.first.wait()
        await peer.engine.close()
        assert FinishReason.CANCELLED is answer.finished.reason
        assert (await ask(peer.engine, request())).finished.error_code == "engine_unavailable"


async def test_over_http_everything_is_sent_each_time() -> None:
    """Nothing is stored at the host, so there is nothing to continue."""
    async with upstream(api="responses") as peer:
        first = request("one", name="r1", tools=TOOLS)
        parent = node(first, await ask(peer.engine, first))
        answer = await ask(peer.engine, request("two", name="r2", parent=parent, tools=TOOLS))
        assert answer.text == "echo: two"
        assert texts(peer.asked[-1]) == ["one", "echo: one", "two"]
        done = (await ask(peer.engine, request("x", tool_choice="required", name="r3"))).finished
        assert done.error_code == "invalid_value"


async def test_a_token_is_handed_over_in_the_call_that_brought_it(tls: Tls) -> None:
    """Over TLS with a trust of its own: no task wakes for a token, and what one read brought is one call."""
    heard: list[tuple[list[Delta], bool]] = []
    is_heard, is_over = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        kind, asked = await peer.hear()
        if kind == 1:  # else the spare one is closed
            assert b'"response.create"' in asked
            peer.writer.write(events(CREATED, delta("a"), delta("b")))
            await is_heard.wait()
            peer.writer.write(events(delta("c"), DONE))
            await peer.hear()

    def sink(deltas: Sequence[Delta]) -> None:
        heard.append((list(deltas), asyncio.current_task() is None))
        is_heard.set()
        if isinstance(deltas[-1], Finished):
            is_over.set()

    tls.server.set_alpn_protocols(["http/1.1"])
    async with scripted(script, tls.server) as url:
        options = RemoteOptions(api="responses-ws", warm=0)
        engine = RemoteEngine("m", url, options=options, ssl_context=tls.client)
        await engine.start()
        engine.submit(request("hi"), sink)
        await is_over.wait()
        await engine.close()
    *tokens, (last, _) = heard
    assert [([TextDelta("a"), TextDelta("b")], True), ([TextDelta("c")], True)] == tokens
    assert isinstance(last[0], Finished)
    assert FinishReason.STOP is last[0].reason
