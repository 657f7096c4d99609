"""Which backend a command line means."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import web

from tightloop.client.in_memory import InMemoryTransport
from tightloop.client.session import Session
from tightloop.harness.backend import UsageError, open_backend
from tightloop.protocol.items import user_message
from tightloop.server.endpoint import Endpoint


async def test_an_engine_in_this_process() -> None:
    async with AsyncExitStack() as stack:
        backend = await open_backend(stack, model="scripted", server=None)
        assert (backend.model, backend.description) == ("scripted", "in process, ScriptedEngine")
        assert backend.transport.supports_continuation


async def test_an_engine_in_this_process_keeps_no_events() -> None:
    """Nobody can read them again there, and a long session would grow by them with each response."""
    async with AsyncExitStack() as stack:
        backend = await open_backend(stack, model="scripted", server=None)
        assert isinstance(backend.transport, InMemoryTransport)
        endpoint = backend.transport._endpoint
        assert isinstance(endpoint, Endpoint)
        session = Session(backend.transport, model=backend.model)
        for number in range(3):
            async for _ in session.respond([user_message(f"message {number}")]):
                pass
        assert len(session.items) == 6
        assert endpoint.backstage.streams.num_bytes == 0
        assert not endpoint.backstage.running


@pytest.mark.parametrize(
    ("server", "root"),
    [
        ("ws://127.0.0.1:9", "http://127.0.0.1:9/v1"),
        ("http://127.0.0.1:9/", "http://127.0.0.1:9/v1"),
        ("http://127.0.0.1:9/api/v2/", "http://127.0.0.1:9/api/v2"),
    ],
)
async def test_server_urls(server: str, root: str) -> None:
    """Nobody listens on the discard port; the refusal names the URL that was tried."""
    async with AsyncExitStack() as stack:
        with pytest.raises(UsageError, match=f"{root}[: ;]"):
            await open_backend(stack, model="m", server=server)


@asynccontextmanager
async def page_server(status: int) -> AsyncIterator[str]:
    """The root of something that answers every request with a page."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(
            text="<html>\n<h1>Hello</h1>\n</html>", status=status, content_type="text/html"
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def test_a_server_that_is_none_is_told_in_one_line() -> None:
    """Neither the page that it sends nor an object's picture; and no word of a key."""
    async with page_server(404) as url:
        for model, kind in (("m", "http"), ("m", "ws"), (None, "http")):
            text = await refusal(url, model, kind)
            assert url in text
            assert "404" in text
            assert "API's root?" in text
            assert not {"\n", "<", "key"} & {*text, *text.split()}


@pytest.mark.parametrize(
    ("status", "says_key", "says_root"),
    [(401, True, False), (404, False, True), (503, False, False)],
)
async def test_the_advice_fits_the_refusal(status: int, *, says_key: bool, says_root: bool) -> None:
    """A host that is busy has neither another root nor another key."""
    async with page_server(status) as url:
        text = await refusal(url, "m", "ws")
    assert str(status) in text
    assert ("the key is read from" in text, "API's root?" in text) == (says_key, says_root)


async def refusal(url: str, model: str | None, kind: str) -> str:
    async with AsyncExitStack() as stack:
        with pytest.raises(UsageError) as caught:
            await open_backend(stack, model=model, server=url, transport=kind)
    return str(caught.value)


@pytest.mark.parametrize("server", ["example.org", "ftp://example.org", "http://"])
async def test_what_is_no_server(server: str) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(UsageError, match="is not an http or ws URL"):
            await open_backend(stack, model="m", server=server)
