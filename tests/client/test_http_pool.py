"""A client's connections, and what an HTTP error says."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tightloop.client.http_pool import HttpPool, check_status
from tightloop.protocol.errors import ApiError


async def test_a_pool_opens_at_first_use_and_again_after_closing() -> None:
    pool = HttpPool("k", reuse_connection=True)
    assert not pool.is_open
    first = pool.session
    assert pool.session is first
    assert first.headers["Authorization"] == "Bearer k"
    await pool.close()
    await pool.close()
    assert first.closed
    assert not pool.is_open
    assert pool.session is not first
    await pool.close()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": {"message": "slow down"}}', "slow down"),
        ("plain words", "plain words"),
        ("", "HTTP status 429 without a body"),
    ],
)
async def test_a_refusal_keeps_its_words_and_its_hint(body: str, message: str) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=429, text=body, headers={"Retry-After": "3"})

    app = web.Application()
    app.router.add_get("/", refuse)
    pool = HttpPool(None, reuse_connection=False)
    async with TestServer(app) as server, pool.session.get(server.make_url("/")) as response:
        with pytest.raises(ApiError) as caught:
            await check_status(response)
    await pool.close()
    assert (caught.value.message, caught.value.retry_after_s) == (message, 3.0)
