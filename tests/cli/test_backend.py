"""Which backend a command line means."""

from contextlib import AsyncExitStack

import pytest

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


@pytest.mark.parametrize("server", ["example.org", "ftp://example.org", "http://"])
async def test_what_is_no_server(server: str) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(UsageError, match="is not an http or ws URL"):
            await open_backend(stack, model="m", server=server)
