"""Small reads: set where asyncio has the knob, left alone elsewhere."""

import pytest

from tests.client.rig import running
from tightloop.client.reads import READ_BYTES, use_small_reads
from tightloop.client.websocket import WebSocketTransport


class Knob:
    max_size = 1 << 18


def test_the_knob_is_turned_where_there_is_one() -> None:
    """A transport of another loop, or none at all, is no error."""
    transport = Knob()
    use_small_reads(transport)
    assert transport.max_size == READ_BYTES
    use_small_reads(None)
    use_small_reads(object())


@pytest.mark.parametrize("kind", ["websocket", "http"])
async def test_both_ends_of_a_connection_read_small(kind: str) -> None:
    """The way to a client's transport is not public in aiohttp: this notices when it moves."""
    async with running(kind) as rig:
        async for _ in rig.transport.stream({"model": "scripted", "input": "x"}):
            pass
        sizes = [transport.max_size for transport in rig.server.transports()]  # type: ignore[attr-defined]
        assert sizes == [READ_BYTES]
        if isinstance(rig.transport, WebSocketTransport):
            line = rig.transport._line
            assert line is not None
            assert line._socket._conn.transport.max_size == READ_BYTES  # type: ignore[union-attr]
