"""A body goes out whole, whatever its size, and its size is told beforehand."""

import pytest
from aiohttp import ClientSession, web

from tightloop.client.json_body import PART_BYTES, JsonBody


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, (4 << 20) + 7])
async def test_it_arrives_as_it_was(size: int) -> None:
    """Also when the host redirects, and it is sent again."""
    body = bytes(range(256)) * (size // 256 + 1)
    heard: list[bytes] = []

    async def answer(http: web.Request) -> web.Response:
        assert http.content_length == size
        assert http.content_type == "application/json"
        heard.append(await http.read())
        if http.path == "/old":
            raise web.HTTPTemporaryRedirect("/new")
        return web.Response()

    app = web.Application(client_max_size=8 << 20)
    app.router.add_post("/{path}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/old"
        async with ClientSession() as session, session.post(url, data=JsonBody(body[:size])):
            pass
    finally:
        await runner.cleanup()
    assert heard == [body[:size], body[:size]]


async def test_aiohttp_can_look_at_it() -> None:
    body = JsonBody(b'{"a":1}')
    assert body.size == 7
    assert body.decode() == '{"a":1}'
    assert await body.as_bytes() == b'{"a":1}'
