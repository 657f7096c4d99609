"""The whole way out: a command in a sandbox, the forwarder, the proxy, a server on loopback."""

import asyncio
import ipaddress
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from tests.sandbox.conftest import OpenSandbox
from tightloop.sandbox.host_rules import Address, AllowList, parse_rule
from tightloop.sandbox.interface import Command, Policy, SandboxError
from tightloop.sandbox.policies import NamedPolicy
from tightloop.sandbox.proxy import AllowListProxy, Decision
from tightloop.sandbox.single_use import SingleUseSandbox
from tightloop.sandbox.way_out import way_out

PYTHON = os.path.realpath(sys.executable)
FETCH = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""


@dataclass
class Outside:
    """A server, and a proxy that knows it as ``server.test``."""

    port: int
    socket: Path
    decisions: list[Decision] = field(default_factory=list)


@pytest_asyncio.fixture
async def outside(tmp_path: Path) -> AsyncIterator[Outside]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello from outside")
        await writer.drain()
        writer.close()

    async def resolve(_host: str, _port: int) -> list[Address]:
        return [ipaddress.ip_address("127.0.0.1")]

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    place = Outside(server.sockets[0].getsockname()[1], tmp_path / "proxy")
    allow = AllowList(
        [parse_rule(f"server.test:{place.port}")], [ipaddress.ip_network("127.0.0.0/8")]
    )
    proxy = AllowListProxy(allow, resolve=resolve, on_decision=place.decisions.append)
    await proxy.start(place.socket)
    yield place
    await proxy.close()
    server.close()


async def test_a_listed_host_is_reached_and_nothing_else(
    outside: Outside, opened: OpenSandbox
) -> None:
    """Programs find the proxy in their environment; directly there is nothing to connect to."""
    sandbox = await opened("bubblewrap", proxy_socket=outside.socket)
    good = await sandbox.run(
        Command(argv=[PYTHON, "-c", FETCH, f"http://server.test:{outside.port}/"])
    )
    assert good.output == "hello from outside\n"
    bad = await sandbox.run(Command(argv=[PYTHON, "-c", FETCH, "http://other.test/"]))
    assert bad.output.startswith("403 tightloop: other.test:80 is not among the hosts")
    direct = await sandbox.run(
        Command(script=f"exec 3<>/dev/tcp/127.0.0.1/{outside.port} && echo connected")
    )
    assert "Connection refused" in direct.output
    assert [(one.host, one.is_allowed) for one in outside.decisions] == [
        ("server.test", True),
        ("other.test", False),
    ]


async def test_the_way_out_outlives_commands(outside: Outside, opened: OpenSandbox) -> None:
    """What ends a command's strays must not end the forwarder."""
    sandbox = await opened("bubblewrap", proxy_socket=outside.socket)
    for _ in range(2):
        await sandbox.run(Command(script="(setsid true &) ; true"))
        result = await sandbox.run(
            Command(argv=[PYTHON, "-c", FETCH, f"http://server.test:{outside.port}/"])
        )
        assert result.output == "hello from outside\n"


async def test_a_single_use_sandbox_has_it_too(outside: Outside, workspace: Path) -> None:
    sandbox = SingleUseSandbox(Policy(workspace, proxy_socket=outside.socket), kind="bubblewrap")
    result = await sandbox.run(
        Command(argv=[PYTHON, "-c", FETCH, f"http://server.test:{outside.port}/"])
    )
    assert result.output == "hello from outside\n"


@pytest.mark.parametrize("has_way_out", [True, False])
async def test_unix_sockets_can_be_denied(
    has_way_out: bool, outside: Outside, opened: OpenSandbox
) -> None:
    """EPERM for commands, pairs excepted; the forwarder has its own, so the way out works."""
    sandbox = await opened(
        "bubblewrap",
        has_unix_sockets=False,
        proxy_socket=outside.socket if has_way_out else None,
    )
    code = (
        "import socket; socket.socketpair(); socket.create_server(('127.0.0.1', 0))\n"
        "try: socket.socket(socket.AF_UNIX)\n"
        "except OSError as error: print(error.errno)\n"
    )
    result = await sandbox.run(Command(argv=[PYTHON, "-c", code]))
    assert result.output == "1\n"
    if has_way_out:
        url = f"http://server.test:{outside.port}/"
        result = await sandbox.run(Command(argv=[PYTHON, "-c", FETCH, url]))
        assert result.output == "hello from outside\n"


async def test_landlock_cannot_keep_a_list_of_hosts(outside: Outside, opened: OpenSandbox) -> None:
    """It says so, instead of letting everything or nothing through."""
    with pytest.raises(SandboxError, match="landlock cannot hold commands to a list of hosts"):
        await opened("landlock", proxy_socket=outside.socket)


async def test_the_socket_is_there_for_as_long_as_it_is_needed() -> None:
    """And nobody else can open the directory that it is in."""
    policy = NamedPolicy("network", "network", hosts=(parse_rule("a.test"),))
    async with way_out(policy, lambda _decision: None) as socket:
        assert socket is not None
        assert socket.is_socket()
        assert socket.parent.stat().st_mode & 0o077 == 0
    assert not socket.parent.exists()
    async with way_out(NamedPolicy("read-only", "read-only"), lambda _decision: None) as nothing:
        assert nothing is None
