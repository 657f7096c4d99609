"""Streamed Chat Completions of servers that are not ours."""

from typing import Any

import pytest

from tests.bench.endpoint import endpoint, refusal, sse
from tightloop.bench.chat_line import ChatAnswer, ChatLine
from tightloop.client.transport import TransportError
from tightloop.protocol.errors import ApiError

DONE = b"data: [DONE]\n\n"


async def answer_to(raw: bytes) -> ChatAnswer:
    async with endpoint(lambda *_: raw) as url:
        line = ChatLine(url, "key", reuse_connection=True)
        try:
            return await line.ask({"model": "m", "messages": []})
        finally:
            await line.close()


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


async def test_text_and_usage() -> None:
    """Role and empty chunks are no output; cached tokens are where OpenAI puts them."""
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
    parts = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "a"}),
        chunk({"content": "b"}),
    ]
    end = chunk({}, "stop")
    found = await answer_to(sse(*parts, end, {"choices": [], "usage": usage}, tail=DONE))
    assert found.message == {"role": "assistant", "content": "ab"}
    assert found.trip.num_output_events == 2
    assert (found.trip.input_tokens, found.trip.cached_tokens) == (9, 8)
    assert found.trip.output_tokens == 2
    assert found.num_bytes > 0


async def test_calls_are_put_together_from_their_pieces() -> None:
    """And one that was cut off half-way is left out: no endpoint takes it back."""

    def call(index: int, **fields: Any) -> dict[str, Any]:
        return chunk({"tool_calls": [{"index": index, **fields}]})

    stream = sse(
        call(0, id="a", function={"name": "exec", "arguments": '{"cm'}),
        call(0, function={"arguments": 'd": 1}'}),
        call(1, id="b", function={"name": "exec", "arguments": '{"cm'}),
        chunk({}, "length"),
    )
    message = (await answer_to(stream)).message
    function = {"name": "exec", "arguments": '{"cmd": 1}'}
    assert message["tool_calls"] == [{"id": "a", "type": "function", "function": function}]


async def test_hidden_thoughts_are_output() -> None:
    found = await answer_to(sse(chunk({"reasoning_content": "hm"}), chunk({}, "stop")))
    assert found.trip.num_output_events == 1
    assert found.message["content"] == "(cut off)"


@pytest.mark.parametrize(
    "raw",
    [
        sse(chunk({"content": "a"})),
        sse(),
        sse(tail=b"data: [1]\n\n"),
        sse(tail=b"data: {\n\n"),
        b"",
    ],
)
async def test_a_stream_without_its_end_is_a_transport_error(raw: bytes) -> None:
    with pytest.raises(TransportError, match=r"http://127\.0\.0\.1"):
        await answer_to(raw)


async def test_refusals_keep_status_and_code() -> None:
    """As a status, and as an event in the stream."""
    with pytest.raises(ApiError, match="no") as caught:
        await answer_to(refusal("429 Too Many Requests", "rate_limit_exceeded"))
    assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
    with pytest.raises(ApiError, match="busy"):
        await answer_to(sse({"error": {"message": "busy", "code": "overloaded"}}))


async def test_a_connection_closed_while_idle_is_opened_again() -> None:
    """Once, and it is told: an agent would pay for it, too. Without a kept one it is an error."""
    answers = [sse(chunk({"content": "b"}), chunk({}, "stop")), b""]
    async with endpoint(lambda *_: answers.pop()) as url:
        line = ChatLine(url, None, reuse_connection=True)
        found = await line.ask({"model": "m", "messages": []})
        await line.close()
    assert found.is_reconnected
    assert found.message["content"] == "b"
    async with endpoint(lambda *_: b"") as url:
        line = ChatLine(url, None, reuse_connection=False)
        with pytest.raises(TransportError, match="broke"):
            await line.ask({"model": "m", "messages": []})
        await line.close()
