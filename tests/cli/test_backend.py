"""Which backend a command line means."""

from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from tightloop.cli.backend import UsageError, open_backend


async def test_an_engine_in_this_process() -> None:
    async with AsyncExitStack() as stack:
        backend = await open_backend(stack, model="scripted", server=None)
        assert (backend.model, backend.description) == ("scripted", "in process, ScriptedEngine")
        assert backend.transport.supports_continuation


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


async def test_a_server_that_is_none_is_told_in_one_line() -> None:
    """Neither the page that it sends nor an object's picture; and no word of a key."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(
            text="<html>\n<h1>Hello</h1>\n</html>", status=404, content_type="text/html"
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    for model, kind in (("m", "http"), ("m", "ws"), (None, "http")):
        async with AsyncExitStack() as stack:
            with pytest.raises(UsageError) as caught:
                await open_backend(stack, model=model, server=url, transport=kind)
        text = str(caught.value)
        assert url in text
        assert "404" in text
        assert "API's root?" in text
        assert not {"\n", "<", "key"} & {*text, *text.split()}
    await runner.cleanup()


@pytest.mark.parametrize("server", ["example.org", "ftp://example.org", "http://"])
async def test_what_is_no_server(server: str) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(UsageError, match="is not an http or ws URL"):
            await open_backend(stack, model="m", server=server)
