"""A connection to whichever address of a host answers."""

import asyncio
import socket
from typing import Any

import pytest

from tightloop.engine.remote.upstream import dial, open_socket


class Made:
    """Sockets for addresses, each kept."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []

    def __call__(self, address: tuple[Any, ...]) -> socket.socket:
        self.sockets.append(open_socket(address))
        return self.sockets[-1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_an_address_that_answers_is_found(host: str) -> None:
    """``localhost`` may be ::1 first, where nobody listens here; what was tried in vain is closed."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made = Made()
    async with server:
        found = await dial(host, port, made)
        assert found.getpeername() == ("127.0.0.1", port)
        found.close()
    assert [one.fileno() for one in made.sockets] == [-1] * len(made.sockets)


async def test_a_host_that_refuses_leaves_nothing_open() -> None:
    made = Made()
    with pytest.raises(ConnectionRefusedError):
        await dial("127.0.0.1", 1, made)
    assert [one.fileno() for one in made.sockets] == [-1]
