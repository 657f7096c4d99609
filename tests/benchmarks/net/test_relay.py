import mmap
import os
import socket
import threading
from pathlib import Path

import pytest

from benchmarks.net.delay_line import DelayLine
from benchmarks.net.link import Link, LinkError, Meter
from benchmarks.net.relay import COUNTERS, Relay


def pair() -> tuple[socket.socket, socket.socket]:
    """A device and our end of it: one read is one packet, as with a TUN device."""
    device, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    device.setblocking(False)
    return device, ours


def test_packets_pass_both_ways_whole_and_counted(tmp_path: Path) -> None:
    """Each packet comes out at the other end as it went in; the counters can be read from outside."""
    path = tmp_path / "counters"
    path.write_bytes(bytes(mmap.PAGESIZE))
    with path.open("r+b") as file:
        counters = mmap.mmap(file.fileno(), COUNTERS.size)
    (near, near_end), (far, far_end) = pair(), pair()
    stop, stopper = os.pipe()
    relay = Relay(near.fileno(), far.fileno(), DelayLine(0), DelayLine(1_000_000), counters)
    thread = threading.Thread(target=relay.run, args=(stop,))
    thread.start()
    for number in range(20):
        near_end.send(bytes([number]) * 1400)
        assert bytes([number]) * 1400 == far_end.recv(65536)
    far_end.send(b"back")
    assert near_end.recv(65536) == b"back"
    os.close(stopper)
    thread.join()
    os.close(stop)
    meter = Meter(path)
    seen = meter.read()
    meter.close()
    counters.close()
    for each in (near, near_end, far, far_end):
        each.close()
    assert (
        seen.packets_up,
        seen.bytes_up,
        seen.packets_down,
        seen.bytes_down,
        seen.num_dropped,
    ) == (20, 28_000, 1, 4, 0)


async def test_a_relay_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The error holds the relay's last words; nothing is left behind."""
    with pytest.raises(LinkError, match="no link: "):
        async with Link(0.02, tmp_path / "nowhere" / "counters"):
            raise AssertionError("the relay must not have started")
