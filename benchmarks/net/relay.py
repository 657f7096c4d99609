"""The relay: a process that joins two network namespaces of its own by a link with a delay.

It makes both namespaces and a TUN device in each, prints one JSON line that says under which
paths the namespaces can be entered, and passes packets on until its standard input ends. When it
ends, also when it is killed, devices and namespaces are gone. Real TCP and TLS run over the link,
so slow start and its return after an idle time are the kernel's own.

``python -m benchmarks.net.relay --rtt-ms 20 [--mbit-per-s 50] --counters FILE``
"""

import argparse
import json
import mmap
import os
import select
import struct
from pathlib import Path

from benchmarks.net import namespaces
from benchmarks.net.delay_line import DelayLine
from tightloop.trace.clock import now_ns

NEAR, FAR = "10.77.0.1", "10.77.0.2"
COUNTERS = struct.Struct("6Q")
"""Packets, bytes and drops from near to far, then the same from far to near."""

SPIN_NS = 60_000
"""A packet due sooner than this is waited for without sleeping: a sleep ends about so much late."""

MAX_PACKET_BYTES = 65536


class Relay:
    """The loop between two TUN descriptors; ``counters`` is shared memory."""

    def __init__(self, near: int, far: int, up: DelayLine, down: DelayLine, counters: mmap.mmap):
        self._ways = ((near, far, up), (far, near, down))
        self._counters = counters

    def run(self, until: int) -> None:
        """Pass packets on until ``until``, a descriptor, is readable."""
        watched = [until, *(source for source, _, _ in self._ways)]
        while True:
            ready, _, _ = select.select(watched, [], [], self._patience_s())
            if until in ready:
                return
            for source, _, line in self._ways:
                if source in ready:
                    self._take(source, line)
            self._deliver()

    def _patience_s(self) -> float | None:
        times = [due for _, _, line in self._ways if (due := line.due_ns()) is not None]
        if not times:
            return None
        return max(0, min(times) - now_ns() - SPIN_NS) / 1e9

    def _take(self, source: int, line: DelayLine) -> None:
        try:
            for _ in range(64):  # the other way must not wait for a long burst to end
                line.push(now_ns(), os.read(source, MAX_PACKET_BYTES))
        except BlockingIOError:
            pass
        self._count()

    def _deliver(self) -> None:
        for _, target, line in self._ways:
            while (packet := line.pop(now_ns())) is not None:
                try:
                    os.write(target, packet)
                except BlockingIOError:
                    line.num_dropped += 1

    def _count(self) -> None:
        (_, _, up), (_, _, down) = self._ways
        COUNTERS.pack_into(
            self._counters, 0,
            up.num_packets, up.num_bytes, up.num_dropped,
            down.num_packets, down.num_bytes, down.num_dropped,
        )  # fmt: skip


def _namespace(device: str, address: str) -> tuple[int, int]:
    """A new namespace with a device in it: descriptors of both."""
    namespaces.enter_new()
    # Each connection starts from nothing, whatever earlier ones learnt about the path.
    namespaces.set_ipv4("tcp_no_metrics_save", "1")
    tun = namespaces.open_tun(device, address)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY), tun


def main() -> None:
    """Join two namespaces until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rtt-ms", type=float, required=True)
    parser.add_argument("--mbit-per-s", type=float)
    parser.add_argument("--counters", type=Path, required=True)
    arguments = parser.parse_args()
    namespaces.end_with_parent()
    arguments.counters.write_bytes(bytes(mmap.PAGESIZE))
    with arguments.counters.open("r+b") as file:
        counters = mmap.mmap(file.fileno(), COUNTERS.size)
    near_space, near = _namespace("tun0", NEAR)
    far_space, far = _namespace("tun0", FAR)
    delay_ns = round(arguments.rtt_ms * 1e6 / 2)
    rate = arguments.mbit_per_s * 1e6 / 8 if arguments.mbit_per_s else None
    pid = os.getpid()
    ready = {"near": f"/proc/{pid}/fd/{near_space}", "far": f"/proc/{pid}/fd/{far_space}"}
    print(json.dumps(ready), flush=True)
    relay = Relay(near, far, DelayLine(delay_ns, rate), DelayLine(delay_ns, rate), counters)
    relay.run(until=0)


if __name__ == "__main__":
    main()
