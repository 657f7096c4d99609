"""The allow-list proxy, with real sockets: servers on loopback, names resolved by a table."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.sandbox.test_client_hello import hello_of
from tightloop.sandbox.host_rules import Address, AllowList, parse_rule
from tightloop.sandbox.proxy import MAX_CONNECTIONS, AllowListProxy, Decision

LOOPBACK = ipaddress.ip_address("127.0.0.1")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says what it hears until the other side has ended."""
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    writer.close()


async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An HTTP server that answers with the request's head."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + head)
    await writer.drain()
    writer.close()


async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that speaks first, as SSH does."""
    writer.write(b"SSH-2.0-test\r\n")
    await echo(reader, writer)


@dataclass
class Place:
    """A proxy, a server behind it, and what the proxy decided."""

    socket: Path
    port: int
    decisions: list[Decision] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.socket)

    async def answer(self, request: str) -> bytes:
        """Everything that comes for one request."""
        reader, writer = await self.connect()
        writer.write(request.encode("latin-1"))
        answer = await reader.read()
        writer.close()
        return answer

    @property
    def reasons(self) -> list[str]:
        return [decision.reason for decision in self.decisions]


@contextlib.asynccontextmanager
async def opened(
    path: Path, handler: Handler = plain, *, networks: Sequence[str] = ("127.0.0.0/8",)
) -> AsyncIterator[Place]:
    """A proxy for ``*.ok.test`` and ``inner.test`` on the port of one server with this handler."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    place = Place(path / "s", port)
    names = {"a.ok.test": [LOOPBACK], "inner.test": [ipaddress.ip_address("10.0.0.1"), LOOPBACK]}

    async def resolve(host: str, _port: int) -> list[Address]:
        place.asked.append(host)
        if host not in names:
            raise socket.gaierror(-2, "Name or service not known")
        return list(names[host])

    rules = [parse_rule(f"{name}:{port}") for name in ("*.ok.test", "inner.test")]
    rules += [parse_rule("a.ok.test"), parse_rule("a.ok.test:9")]
    allow = AllowList(rules, [ipaddress.ip_network(text) for text in networks])
    proxy = AllowListProxy(allow, resolve=resolve, on_decision=place.decisions.append)
    await proxy.start(place.socket)
    try:
        yield place
    finally:
        await proxy.close()
        await proxy.close()
        server.close()


async def test_a_plain_request_reaches_a_listed_host(tmp_path: Path) -> None:
    """Once, with a new head; the decision is told."""
    async with opened(tmp_path) as place:
        target = f"http://a.ok.test:{place.port}/x"
        answer = await place.answer(
            f"GET {target} HTTP/1.1\r\nHost: a.ok.test:{place.port}\r\n\r\n"
        )
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n\r\nGET /x HTTP/1.1\r\n")
    assert place.decisions == [Decision("GET", "a.ok.test", place.port, True)]


async def test_a_body_goes_with_its_request_and_nothing_after_it(tmp_path: Path) -> None:
    """A second request in the same connection would not be judged."""

    rest: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + await reader.readexactly(4))
        writer.write_eof()
        rest.set_result(await reader.read())
        writer.close()

    async with opened(tmp_path, handler) as place:
        head = f"POST http://a.ok.test:{place.port}/ HTTP/1.1\r\nContent-Length: 4\r\n\r\n"
        answer = await place.answer(head + "bodyGET http://b.test/ HTTP/1.1\r\n\r\n")
        assert answer.endswith(b"\r\n\r\nbody")
        assert await rest == b""


async def test_a_tunnel_with_the_right_server_name(tmp_path: Path) -> None:
    """Bytes pass both ways, half-closed ends too."""
    async with opened(tmp_path, echo) as place:
        reader, writer = await place.connect()
        writer.write(f"CONNECT a.ok.test:{place.port} HTTP/1.1\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        sent = hello_of("A.ok.test") + b"x" * 300_000
        writer.write(sent)
        writer.write_eof()
        assert await reader.read(-1) == sent
        writer.close()
    assert place.decisions == [Decision("CONNECT", "a.ok.test", place.port, True)]


@pytest.mark.parametrize("name", ["b.ok.test", None])
async def test_a_tunnel_with_another_server_name(tmp_path: Path, name: str | None) -> None:
    """Many sites share a front end: the name decides which one answers."""
    async with opened(tmp_path, echo) as place:
        reader, writer = await place.connect()
        writer.write(f"CONNECT a.ok.test:{place.port} HTTP/1.1\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(hello_of(name))
        assert await reader.read() == b""
        writer.close()
    assert place.reasons == [f"the tunnel is for a.ok.test, its TLS for {name}"]


async def test_protocols_that_are_not_tls_pass_on_ports_that_are_named(tmp_path: Path) -> None:
    """Also those whose server speaks first."""
    async with opened(tmp_path, banner) as place:
        reader, writer = await place.connect()
        writer.write(f"CONNECT a.ok.test:{place.port} HTTP/1.1\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n") == b"SSH-2.0-test\r\n"
        writer.write(b"SSH-2.0-client\r\n")
        assert await reader.readuntil(b"\r\n") == b"SSH-2.0-client\r\n"
        writer.close()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("CONNECT evil.test:443", "is not among the hosts of policy 'network'"),
        ("CONNECT ok.test:{port}", "is not among the hosts"),
        ("CONNECT a.ok.test.evil.test:{port}", "is not among the hosts"),
        ("CONNECT xa.ok.tests:{port}", "is not among the hosts"),
        ("CONNECT 127.0.0.1:{port}", "is an address"),
        ("CONNECT [::1]:{port}", "is an address"),
        ("CONNECT 2130706433:{port}", "is an address"),
        ("GET http://169.254.169.254/latest/", "is an address"),
        ("GET http://metadata.google.internal/", "is a metadata service"),
        ("GET http://a.ok.test:{port}@evil.test/", "is not a host with a port"),
        ("GET http://inner.test:{port}/", "leads to the private address 10.0.0.1"),
    ],
)
async def test_refusals_say_why_and_are_told(tmp_path: Path, target: str, said: str) -> None:
    """No connection is made; the answer is one that clients show."""
    async with opened(tmp_path) as place:
        answer = await place.answer(f"{target.format(port=place.port)} HTTP/1.1\r\n\r\n")
    assert answer[:12] in (b"HTTP/1.1 403", b"HTTP/1.1 400")
    assert said in answer.decode()
    (decision,) = place.decisions
    assert not decision.is_allowed
    assert said in decision.reason


async def test_a_loopback_address_is_private_unless_listed(tmp_path: Path) -> None:
    """The name is allowed, where it leads is not."""
    async with opened(tmp_path, networks=()) as place:
        answer = await place.answer(f"GET http://a.ok.test:{place.port}/ HTTP/1.1\r\n\r\n")
    assert b"leads to the private address 127.0.0.1" in answer


async def test_refused_names_are_never_resolved(tmp_path: Path) -> None:
    """A question to a name server already carries data out."""
    async with opened(tmp_path) as place:
        await place.answer("CONNECT secret-data.evil.test:443 HTTP/1.1\r\n\r\n")
    assert place.asked == []


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("\x05\x01\x00", b"400"),
        ("GET http://a.ok.test/ HTTP/1.1\r\nHost: b.ok.test\r\n\r\n", b"403"),
        ("GET http://nowhere.ok.test:{port}/ HTTP/1.1\r\n\r\n", b"502"),
        ("CONNECT a.ok.test:9 HTTP/1.1\r\n\r\n", b"502"),
        ("GET http://a.ok.test/" + 40_000 * "x" + " HTTP/1.1\r\n\r\n", b"431"),
    ],
)
async def test_what_cannot_be_served(tmp_path: Path, request_text: str, status: bytes) -> None:
    """SOCKS, another site's Host line, unknown names, closed ports, endless heads."""
    async with opened(tmp_path) as place:
        answer = await place.answer(request_text.replace("{port}", str(place.port)))
    assert answer[:12] == b"HTTP/1.1 " + status
    assert len(place.decisions) == 1
    assert not place.decisions[0].is_allowed


async def test_a_client_that_says_nothing_is_no_decision(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        _, writer = await place.connect()
        writer.close()
        await place.answer("CONNECT evil.test:443 HTTP/1.1\r\n\r\n")
    assert len(place.decisions) == 1


async def test_too_many_connections_are_told_so(tmp_path: Path) -> None:
    """A command cannot use up the descriptors of the agent."""
    async with opened(tmp_path) as place:
        held = [await place.connect() for _ in range(MAX_CONNECTIONS)]
        reader, writer = await place.connect()
        assert (await reader.read())[:12] == b"HTTP/1.1 503"
        for _, one in (*held, (reader, writer)):
            one.close()


async def test_closing_ends_what_is_under_way(tmp_path: Path) -> None:
    """A tunnel does not outlive the sandbox that it is for."""
    async with opened(tmp_path, echo) as place:
        reader, writer = await place.connect()
        writer.write(f"CONNECT a.ok.test:{place.port} HTTP/1.1\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
    assert await reader.read() == b""
    writer.close()
