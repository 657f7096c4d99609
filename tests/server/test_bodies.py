"""Bodies arrive in any pieces, and sometimes not at all."""

import asyncio
import gzip
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from tightloop.server.bodies import read_body


class Echo:
    """Answers with the body; ``failure`` is what reading raised. Reads when ``may_read`` is set."""

    def __init__(self) -> None:
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.is_asked = asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.is_asked.set()
        await self.may_read.wait()
        try:
            return web.Response(body=await read_body(request))
        except BaseException as error:
            self.failure.set_result(error)
            raise


@asynccontextmanager
async def echoing(limit: int = 1 << 22) -> AsyncIterator[Echo]:
    echo = Echo()
    app = web.Application(client_max_size=limit)
    app.router.add_post("/", echo.answer)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    echo.port = runner.addresses[0][1]
    try:
        yield echo
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("size", [0, 1, 65536, 1 << 20, 3_000_001])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_is_read_whole(size: int, is_chunked: bool) -> None:
    """Twice on one connection; also one that says nothing of its length."""
    body = (b"0123456789" * (size // 10 + 1))[:size]

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 50_000):
            yield body[start : start + 50_000]

    async with echoing() as echo, aiohttp.ClientSession() as http:
        for _ in range(2):
            data = pieces() if is_chunked else io.BytesIO(body)  # a large one is sent in pieces
            async with http.post(f"http://127.0.0.1:{echo.port}/", data=data) as response:
                assert response.status == 200
                assert body == await response.read()


async def test_a_body_that_waited_before_it_was_read() -> None:
    """More than the server takes in by itself: the socket was told to wait, and must go on."""
    async with echoing() as echo, aiohttp.ClientSession() as http:
        echo.may_read.clear()
        body = b"x" * (1 << 21)
        async with asyncio.TaskGroup() as group:
            url = f"http://127.0.0.1:{echo.port}/"
            asking = group.create_task(post(http, url, body))
            await echo.is_asked.wait()
            for _ in range(100):  # the loop takes in what it will
                await asyncio.sleep(0)
            echo.may_read.set()
        assert body == asking.result()


async def post(http: aiohttp.ClientSession, url: str, body: bytes) -> bytes:
    async with http.post(url, data=io.BytesIO(body)) as response:
        return await response.read()


async def test_a_compressed_body_is_unpacked() -> None:
    headers = {"Content-Encoding": "gzip"}
    body = b"abc" * 100_000
    async with echoing() as echo, aiohttp.ClientSession() as http:
        data = gzip.compress(body)
        url = f"http://127.0.0.1:{echo.port}/"
        async with http.post(url, data=data, headers=headers) as response:
            assert body == await response.read()


async def test_a_body_that_is_too_large_is_refused() -> None:
    async with echoing(1000) as echo, aiohttp.ClientSession() as http:
        async with http.post(f"http://127.0.0.1:{echo.port}/", data=b"x" * 1001) as response:
            assert response.status == 413
        assert isinstance(await echo.failure, web.HTTPRequestEntityTooLarge)


async def test_a_peer_that_hangs_up_in_the_middle_ends_the_reading() -> None:
    async with echoing() as echo:
        _, writer = await asyncio.open_connection("127.0.0.1", echo.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        await echo.is_asked.wait()
        writer.close()
        await writer.wait_closed()
        await echo.failure
