"""The far end of a connection: order, a slow reader, interrupts, and who may connect."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tightloop.cli.testing.channel import Channel


@dataclass
class Run:
    """A run that notes what is done to it."""

    done: list[str] = field(default_factory=list)
    interrupted: asyncio.Event = field(default_factory=asyncio.Event)

    def send_signal(self, number: int) -> None:
        self.done.append(signal.Signals(number).name)
        self.interrupted.set()

    def kill(self) -> None:
        self.done.append("kill")


@pytest.fixture
def near() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection, ours first."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ours, theirs
    ours.close()
    theirs.close()


async def test_everything_arrives_in_order_however_slowly_it_is_read(
    near: tuple[socket.socket, socket.socket],
) -> None:
    """Far more than a socket holds; the end comes last, and only then is the channel done."""
    ours, theirs = near
    channel = Channel(theirs)
    whole = b"".join(b"%d\n" % number for number in range(200_000))
    channel.output(whole)
    channel.note("words")
    ending = asyncio.create_task(channel.end(3, "over"))
    heard = b""
    while True:
        message = await asyncio.to_thread(ours.recv, 1 << 17)
        if message[:1] != b"o":
            break
        heard += message[1:]
    assert heard == whole
    assert message == b"etightloop: words\n"
    assert await asyncio.to_thread(ours.recv, 1 << 17) == b"x3\0tightloop: over\n"
    await ending


async def test_an_interrupt_then_a_kill(near: tuple[socket.socket, socket.socket]) -> None:
    """The second means it; the end of the connection means it too."""
    ours, theirs = near
    channel, run = Channel(theirs), Run()
    channel.watch(run)
    listening = asyncio.create_task(channel.listen())
    for _ in range(2):
        ours.send(b"i")
    ours.close()
    await listening
    assert run.done == ["SIGINT", "kill", "kill"]
    assert channel.is_gone
    channel.output(b"nobody hears it")
    await channel.end(0)


async def test_an_interrupt_before_the_run_counts(
    near: tuple[socket.socket, socket.socket],
) -> None:
    """Also one that came before a check's own run."""
    ours, theirs = near
    channel, first, run, other = Channel(theirs), Run(), Run(), Run()
    listening = asyncio.create_task(channel.listen())
    assert not channel.is_given_up
    channel.watch(first)
    ours.send(b"i")
    await first.interrupted.wait()
    assert channel.is_given_up
    channel.watch(run)
    ours.close()
    await listening
    channel.watch(other)
    assert (run.done, other.done) == (["SIGINT", "kill"], ["kill"])


async def test_a_request_of_our_own_is_ours(near: tuple[socket.socket, socket.socket]) -> None:
    """Same user, no sandbox; what it asks for is the first message, or nothing at the end."""
    ours, theirs = near
    channel = Channel(theirs)
    assert channel.peer_is_ours()
    ours.send(b"request")
    assert await channel.request() == b"request"
    ours.close()
    assert await channel.request() == b""
