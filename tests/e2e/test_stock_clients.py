"""79x: the ground that the tests of other people's agents stand on."""

from pathlib import Path

import aiohttp
import pytest

from tests.e2e.conftest import Serve
from tests.e2e.relay import Relay
from tests.e2e.stock_clients import Home, installed, run


def test_790_a_missing_client_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not a skip, and the text says what to do."""
    monkeypatch.setenv("TIGHTLOOP_CLIENTS", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="make clients"):
        installed("npm", "node_modules", ".bin", "codex")


async def test_791_there_is_no_way_out(serve: Serve, home: Home) -> None:
    """A client that wants another host is refused, and the test knows of it."""
    async with Relay(serve("--model", "scripted").url) as relay:
        env = home.environment(relay.origin)
        program = "import urllib.request as r; r.urlopen('https://example.invalid/')"
        done = await run(["python", "-c", program], home, env)
    assert done.status == 1
    assert relay.outside == ["example.invalid:443"]


async def test_792_a_relay_passes_answers_on_as_they_are(serve: Serve) -> None:
    """Status, body and the kind of body."""
    served = serve("--model", "scripted")
    async with Relay(served.url) as relay, aiohttp.ClientSession() as session:
        for path in ("/models", "/responses/resp_none"):
            async with session.get(served.url + path) as direct:
                expected = (direct.status, direct.content_type, await direct.read())
            async with session.get(relay.url + path) as relayed:
                assert expected == (relayed.status, relayed.content_type, await relayed.read())
    assert [exchange.status for exchange in relay.exchanges] == [200, 404]
