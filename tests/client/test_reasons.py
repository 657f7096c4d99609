"""Words for connections that fail."""

import asyncio
import socket
import ssl

import aiohttp
import pytest

from tightloop.client.reasons import reason_of


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(104, "Connection reset by peer"), "Connection reset by peer"),
        (OSError("odd"), "odd"),
        (TimeoutError(), "no answer in time"),
        (ValueError(), "ValueError"),
        (aiohttp.ServerDisconnectedError(), "Server disconnected"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong"), "[SSL: WRONG_VERSION_NUMBER] wrong"),
    ],
)
def test_a_reason_is_one_line(error: Exception, text: str) -> None:
    """And no picture of the object."""
    assert reason_of(error) == text


async def test_a_port_where_nobody_listens() -> None:
    """As the system says it, without the connector's key."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        async with aiohttp.ClientSession() as client:
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await client.get(url)
    assert "Connect" in reason_of(caught.value)
    assert "ConnectionKey" not in reason_of(caught.value)


async def test_a_server_that_does_not_speak_http() -> None:
    """In one line, however many the parser has."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-hello\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server, aiohttp.ClientSession() as client:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(aiohttp.ClientResponseError) as caught:
            await client.get(f"http://127.0.0.1:{port}")
    reason = reason_of(caught.value)
    assert reason.startswith("it answered what is no HTTP: Bad status line")
    assert "\n" not in reason
