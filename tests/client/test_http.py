"""The HTTP transport against servers that are not ours, or not well."""

import pytest

from tests.client.canned import answering, http
from tightloop.client.http import HttpTransport
from tightloop.client.transport import Event, TransportError
from tightloop.protocol.errors import ApiError

SSE = "Content-Type: text/event-stream"
DONE = b'data: {"type":"response.completed","response":{"id":"r"}}\n\n'


async def events_from(answer: bytes) -> list[Event]:
    async with answering(answer) as url:
        transport = HttpTransport(url)
        try:
            return [event async for event in transport.stream({"model": "m", "input": "x"})]
        finally:
            await transport.close()


async def test_the_least_that_servers_send_is_enough() -> None:
    """No event lines, no [DONE], comments in between, and nothing after the terminal event."""
    late = b'data: {"type":"response.in_progress"}\n\n'
    events = await events_from(http("200 OK", b": hello\n\n" + DONE + late, SSE))
    assert [event["type"] for event in events] == ["response.completed"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"data: [DONE]\n\n",
        DONE[:-1],
        b'data: {"type":"response.created"}\n\n',
        b"data: not json\n\n",
        b"data: [1]\n\n",
        b"<html>no stream</html>",
    ],
)
async def test_a_stream_without_its_end_is_a_transport_error(body: bytes) -> None:
    """With the URL; also when it is no event stream at all."""
    with pytest.raises(TransportError, match=r"http://127\.0\.0\.1"):
        await events_from(http("200 OK", body, SSE))


@pytest.mark.parametrize(
    "error",
    [
        b'{"type":"error","code":"overloaded","message":"busy","param":null}',
        b'{"type":"error","error":{"type":"t","code":"overloaded","message":"busy"}}',
    ],
)
async def test_an_error_event_in_either_shape_is_an_api_error(error: bytes) -> None:
    """Unless a terminal event follows, which says more."""
    frame = b"event: error\ndata: " + error + b"\n\n"
    with pytest.raises(ApiError, match="busy") as caught:
        await events_from(http("200 OK", frame, SSE))
    assert caught.value.code == "overloaded"
    assert len(await events_from(http("200 OK", frame + DONE, SSE))) == 1


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        ("502 Bad Gateway", b"<html>proxy</html>", "proxy"),
        ("500 Oops", b"", "500 without a body"),
        ("400 Bad", b'{"error":{"message":"no","code":"c","param":"p"}}', "no"),
        ("400 Bad", b'{"error":"plain"}', "plain"),
        ("400 Bad", b"[]", "400"),
        ("418 Teapot", b"x" * 1_000_000, "xxx"),
    ],
)
async def test_an_http_error_is_an_api_error_whatever_its_body(
    status: str, body: bytes, message: str
) -> None:
    """Status and reason are kept, the size is bounded."""
    with pytest.raises(ApiError, match=message) as caught:
        await events_from(http(status, body))
    assert caught.value.status == int(status[:3])
    assert len(caught.value.message) <= 2000


@pytest.mark.parametrize(("value", "expected"), [("3", 3.0), ("soon", None)])
async def test_retry_after_reaches_the_caller(value: str, expected: float | None) -> None:
    """In seconds; a date or nonsense counts as unknown."""
    with pytest.raises(ApiError) as caught:
        await events_from(http("429 Slow", b"{}", f"Retry-After: {value}"))
    assert caught.value.retry_after_s == expected


async def test_connecting_finds_a_bad_answer_early() -> None:
    """Before the first request is needed."""
    async with answering(http("401 No", b'{"error":{"message":"key"}}')) as url:
        transport = HttpTransport(url)
        with pytest.raises(ApiError, match="key"):
            await transport.connect()
    with pytest.raises(TransportError, match="cannot connect"):
        await transport.connect()
    await transport.close()
