"""HTTP/2 to a host: the same interface, other failures."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h2.errors
import h2.settings
import orjson
import pytest

from tests.engine.collecting import ask, request, start
from tests.engine.fleet.members import until
from tests.engine.remote.conftest import Tls
from tests.engine.remote.h2_host import Host, Reply, Stream, serving
from tightloop.engine.interface import EngineError
from tightloop.engine.remote import RemoteEngine, RemoteOptions, http2
from tightloop.engine.remote import answer as answer_module
from tightloop.engine.remote.http1 import Http1Upstream
from tightloop.engine.remote.http2 import Http2Reply, Http2Upstream
from tightloop.engine.remote.upstream import UpstreamError, read_whole
from tightloop.protocol.deltas import FinishReason
from tightloop.protocol.items import user_message


def event(**delta: Any) -> bytes:
    return b"data: " + orjson.dumps({"choices": [{"index": 0, **delta}]}) + b"\n\n"


STOP = event(delta={}, finish_reason="stop") + b"data: [DONE]\n\n"


def answering(stream: Stream) -> None:
    if stream.headers[":method"] == "GET":
        stream.answer(b'{"data": [{"id": "m"}]}', content_type="application/json")
    else:
        stream.answer(event(delta={"content": "Good"}), event(delta={"content": " day"}), STOP)


def in_turn(*replies: Reply) -> Reply:
    """One of these for each POST."""
    waiting = list(replies)

    def reply(stream: Stream) -> None:
        is_post = stream.headers[":method"] == "POST" and bool(waiting)
        (waiting.pop(0) if is_post else answering)(stream)

    return reply


@asynccontextmanager
async def engine(reply: Reply, tls: Tls) -> AsyncIterator[tuple[RemoteEngine, Host]]:
    async with serving(reply, tls) as (host, url):
        remote = RemoteEngine(
            "m", url, options=RemoteOptions(http="2", gzip="off"), ssl_context=tls.client
        )
        await remote.start()
        try:
            yield remote, host
        finally:
            await remote.close()


@asynccontextmanager
async def upstream(reply: Reply, tls: Tls) -> AsyncIterator[tuple[Http2Upstream, Host]]:
    async with serving(reply, tls) as (host, url):
        made = Http2Upstream(url, lambda: {"Authorization": "Bearer k"}, ssl_context=tls.client)
        try:
            yield made, host
        finally:
            await made.close()


async def test_many_answers_over_one_connection(tls: Tls) -> None:
    async with engine(answering, tls) as (remote, host):
        answers = [start(remote, request("hi", name=f"r{n}")) for n in range(20)]
        for answer in answers:
            await answer.wait()
        assert {answer.text for answer in answers} == {"Good day"}
    assert host.num_connections == 1
    assert len(host.posts) == 20


async def test_what_one_read_brought_is_handed_over_in_the_call_that_brought_it(tls: Tls) -> None:
    """No task wakes for a token: there is none while the reader is called. Frames of a read are one piece."""
    said: list[tuple[bytes, bool]] = []

    def reply(stream: Stream) -> None:
        stream.begin(content_type="text/event-stream")
        for letter in (b"a", b"b", b"c"):
            stream.line.h2.send_data(stream._id, letter)
        stream.line.write()
        going.append(stream)

    def take(piece: bytes) -> bool:
        said.append((piece, asyncio.current_task() is None))
        for stream in going:
            stream.say(b"d")
            stream.end()
        going.clear()
        return False

    going: list[Stream] = []
    async with upstream(reply, tls) as (made, host):
        answer = await made.post("/x", b"{}", {})
        await answer.pour(take)
        await answer.finish()
        assert not host.cancelled.is_set()
    assert b"".join(piece for piece, _ in said) == b"abcd"
    assert said[-1] == (b"d", True)
    assert len(said) <= 2


async def test_silence_ends_an_answer_and_not_the_connection(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(stream: Stream) -> None:
        stream.begin(content_type="text/event-stream")
        stream.say(event(delta={"content": "a"}))

    async with engine(in_turn(half), tls) as (remote, host):
        monkeypatch.setattr(http2, "SILENCE_TIMEOUT_S", 0.2)
        answer = await ask(remote, request("hi"))
        monkeypatch.undo()
        assert (answer.text, answer.finished.reason) == ("a", FinishReason.ERROR)
        await host.cancelled.wait()
        assert (await ask(remote, request("hi", name="r2"))).text == "Good day"
        assert host.num_connections == 1


async def test_headers_and_body_arrive_whole(tls: Tls) -> None:
    """A body larger than any window is sent as the host lets it in."""
    text = "x" * 3_000_000
    async with engine(answering, tls) as (remote, host):
        assert (await ask(remote, request([user_message(text)]))).text == "Good day"
    (post,) = host.posts
    assert orjson.loads(post.body)["messages"][0]["content"] == text
    assert post.headers[":path"] == "/v1/chat/completions"
    assert post.headers["content-type"] == "application/json"


async def test_an_answer_larger_than_the_first_window_never_waits(tls: Tls) -> None:
    """A host that was not told of a larger window may send 64 KiB; ours cannot send more by mistake."""
    text = "x" * 10_000

    def reply(stream: Stream) -> None:
        stream.begin(content_type="text/event-stream")
        for _ in range(20):
            stream.say(event(delta={"content": text}))
        stream.say(STOP)
        stream.end()

    async with engine(in_turn(reply), tls) as (remote, _):
        assert (await ask(remote, request("hi"))).text == text * 20


async def test_an_answer_that_nobody_reads_waits_at_the_host(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for a window of it; the other streams of the connection do not wait with it."""
    monkeypatch.setattr(http2, "WINDOW_BYTES", 100_000)
    monkeypatch.setattr(answer_module, "MAX_HELD_BYTES", 10_000)
    body = b"x" * 3_000_000

    def reply(stream: Stream) -> None:
        stream.begin()
        stream.flood(body)

    async with upstream(reply, tls) as (made, host):
        unread = await made.post("/x", b"{}", {})
        for _ in range(3):
            assert body == await read_whole(await made.post("/x", b"{}", {}), len(body))
        assert len(host.posts[0].unsent) > 2_500_000
        assert body == await read_whole(unread, len(body))
        unread.close()
        assert not host.cancelled.is_set()


async def test_the_quiet_of_an_answer_that_nobody_reads_is_ours(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_module, "MAX_HELD_BYTES", 10)

    def half(stream: Stream) -> None:
        stream.begin()
        stream.say(b"x" * 11)
        going.append(stream)

    going: list[Stream] = []
    async with upstream(half, tls) as (made, _):
        reply = await made.post("/x", b"{}", {})
        await until(lambda: reply.is_paused)
        assert not is_watched(reply)
        assert await anext(reply.pieces()) == b"x" * 11
        assert is_watched(reply)
        going[0].say(b"x" * 11)
        await until(lambda: reply.is_paused)
        going[0].end()
        await until(lambda: not reply.is_paused)
        assert not is_watched(reply)


def is_watched(reply: Http2Reply) -> bool:
    """Whether its silence would end it."""
    return reply._quiet is not None and not reply._quiet._timer.cancelled()


async def test_the_key_and_other_headers_are_sent(tls: Tls) -> None:
    async with upstream(answering, tls) as (made, host):
        reply = await made.post("/x", b"{}", {"Content-Encoding": "gzip"})
        assert reply.status == 200
        await reply.finish()
    headers = host.posts[0].headers
    assert (headers["authorization"], headers["content-encoding"]) == ("Bearer k", "gzip")


@pytest.mark.parametrize(
    "fault",
    [
        lambda stream: stream.reset(h2.errors.ErrorCodes.REFUSED_STREAM),
        lambda stream: stream.go_away(0),
        lambda stream: stream.abort(),
    ],
)
async def test_what_was_not_answered_is_asked_again_once(
    fault: Callable[[Stream], None], tls: Tls
) -> None:
    async with engine(in_turn(fault), tls) as (remote, host):
        assert (await ask(remote, request("hi"))).text == "Good day"
        assert len(host.posts) == 2
    async with engine(in_turn(fault, fault, fault), tls) as (remote, host):
        done = (await ask(remote, request("hi"))).finished
        assert done.error_code == "upstream_error"
        assert len(host.posts) == 2


@pytest.mark.parametrize(
    "fault",
    [
        lambda stream: stream.reset(h2.errors.ErrorCodes.INTERNAL_ERROR),
        lambda stream: stream.hang_up(),
    ],
)
async def test_nothing_is_repeated_after_a_byte(fault: Callable[[Stream], None], tls: Tls) -> None:
    def half(stream: Stream) -> None:
        stream.begin(content_type="text/event-stream")
        stream.say(event(delta={"content": "a"}))
        fault(stream)

    async with engine(in_turn(half), tls) as (remote, host):
        answer = await ask(remote, request("hi"))
        assert answer.text == "a"
        assert answer.finished.error_code == "upstream_error"
        assert len(host.posts) == 1


async def test_an_internal_error_is_not_asked_again(tls: Tls) -> None:
    """The host has looked at the request."""

    def fault(stream: Stream) -> None:
        stream.reset(h2.errors.ErrorCodes.INTERNAL_ERROR)

    async with engine(in_turn(fault), tls) as (remote, host):
        assert (await ask(remote, request("hi"))).finished.reason is FinishReason.ERROR
        assert len(host.posts) == 1


async def test_cancel_resets_the_stream_and_keeps_the_connection(tls: Tls) -> None:
    def half(stream: Stream) -> None:
        stream.begin(content_type="text/event-stream")
        stream.say(event(delta={"content": "a"}))

    async with engine(in_turn(half), tls) as (remote, host):
        answer = start(remote, request("hi"))
        await answer.first.wait()
        assert answer.generation is not None
        answer.generation.cancel()
        assert (await answer.wait()).reason is FinishReason.CANCELLED
        await host.cancelled.wait()
        assert (await ask(remote, request("hi", name="r2"))).text == "Good day"
        assert host.num_connections == 1


async def test_a_connection_that_was_lost_is_replaced(tls: Tls) -> None:
    async with upstream(answering, tls) as (made, host):
        assert await read_whole(await made.get("/models", {}), 99)
        for line in list(host.lines):
            assert line.transport is not None
            line.transport.abort()
        assert await read_whole(await made.get("/models", {}), 99)
        assert host.num_connections == 2


async def test_small_writes_go_out_at_once(tls: Tls) -> None:
    async with upstream(answering, tls) as (made, _):
        assert await made.is_offered()
        (sock,) = made.sockets()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_it_is_used_only_where_it_is_offered(tls: Tls) -> None:
    """A host without it gets HTTP/1.1, and whoever demands HTTP/2 is told."""
    tls.server.set_alpn_protocols(["http/1.1"])
    async with serving(answering, tls) as (_, url):
        relaxed = RemoteEngine("m", url, options=RemoteOptions(http="auto"), ssl_context=tls.client)
        await relaxed.start()
        assert isinstance(relaxed.host.upstream, Http1Upstream)
        await relaxed.close()
        strict = RemoteEngine("m", url, options=RemoteOptions(http="2"), ssl_context=tls.client)
        with pytest.raises(EngineError, match="does not offer HTTP/2"):
            await strict.start()
    plain = RemoteEngine("m", "http://127.0.0.1:1/v1", options=RemoteOptions(http="2"))
    with pytest.raises(EngineError, match="https address"):
        await plain.start()


async def test_auto_takes_it_where_it_is_offered(tls: Tls) -> None:
    async with serving(answering, tls) as (_, url):
        remote = RemoteEngine("m", url, options=RemoteOptions(http="auto"), ssl_context=tls.client)
        await remote.start()
        assert isinstance(remote.host.upstream, Http2Upstream)
        assert (await ask(remote, request("hi"))).text == "Good day"
        await remote.close()


async def test_a_host_that_cannot_be_reached() -> None:
    made = Http2Upstream("https://127.0.0.1:1/v1", dict)
    assert not await made.is_offered()
    assert await made.warm(1, "/models") == []
    with pytest.raises(UpstreamError):
        await made.get("/models", {})
    await made.close()
    with pytest.raises(EngineError):
        await made.get("/models", {})


async def test_a_host_that_breaks_the_protocol(tls: Tls) -> None:
    def garbage(stream: Stream) -> None:
        assert stream.line.transport is not None
        stream.begin()
        stream.line.transport.write(b"\0\0\1\0\0\0\0\0\0x")  # data of no stream

    async with engine(in_turn(garbage), tls) as (remote, host):
        done = (await ask(remote, request("hi"))).finished
        assert done.error_code == "upstream_error"
        assert "broke HTTP/2" in str(done.error_message)
        assert len(host.posts) == 1


async def test_a_host_that_closes_gently_finishes_its_answers(tls: Tls) -> None:
    """Gateways announce the end of a connection while answers are under way."""
    waiting: list[Stream] = []

    def half(stream: Stream) -> None:
        stream.begin(content_type="text/event-stream")
        stream.say(event(delta={"content": "a"}))
        waiting.append(stream)

    async with engine(in_turn(half), tls) as (remote, host):
        answer = start(remote, request("hi"))
        await answer.first.wait()
        waiting[0].drain()
        waiting[0].say(event(delta={"content": "b"}) + STOP)
        waiting[0].end()
        assert (await answer.wait()).reason is FinishReason.STOP
        assert answer.text == "ab"
        assert (await ask(remote, request("again", name="r2"))).text == "Good day"
        assert host.num_connections == 2
        # The first one is closed, although the host keeps it open.
        await until(lambda: len(host.lines) == 1)


async def test_an_answer_that_comes_before_the_body_was_read(tls: Tls) -> None:
    """The rest of the body is not sent; what the host said of it is told."""
    async with engine(answering, tls) as (remote, host):
        host.refuses_early = True
        done = (await ask(remote, request("x" * 400_000))).finished
        assert done.error_code == "context_length_exceeded"
        assert "far too much" in str(done.error_message)
        await host.cancelled.wait()


async def test_whole_answers_are_not_reset(tls: Tls) -> None:
    """Hosts count resets, and close the connections of clients that send many."""
    async with upstream(answering, tls) as (made, host):
        for _ in range(2):
            reply = await made.post("/chat/completions", b"{}", {})
            await read_whole(reply, 10_000)
            reply.close()
        assert not host.cancelled.is_set()


async def test_more_streams_than_the_host_allows(tls: Tls) -> None:
    """They go over another connection, and none of the connections is left behind."""
    async with engine(answering, tls) as (remote, host):
        for line in host.lines:
            line.h2.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1})
            line.write()
        await ask(remote, request("hi"))  # by now the limit is known
        answers = [start(remote, request("hi", name=f"r{number}")) for number in range(4)]
        assert [(await one.wait()).reason for one in answers] == [FinishReason.STOP] * 4
    await until(lambda: not host.lines)
