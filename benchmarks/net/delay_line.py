"""One direction of an emulated link, without I/O: packets in, the same packets out when due."""

from collections import deque

BACKLOG_S = 0.25
"""How long a queue in front of a bandwidth cap may get before packets are dropped."""


class DelayLine:
    """Delivers packets in order, ``delay_ns`` after they came.

    With ``bytes_per_s`` they leave one after the other at that rate first, as through a
    bottleneck, and are dropped when the queue before it would be longer than ``BACKLOG_S``.
    """

    def __init__(self, delay_ns: int, bytes_per_s: float | None = None) -> None:
        if delay_ns < 0:
            raise ValueError(f"a delay cannot be negative, got {delay_ns}")
        self.num_packets = 0
        self.num_bytes = 0
        self.num_dropped = 0
        self._delay_ns = delay_ns
        self._ns_per_byte = 1e9 / bytes_per_s if bytes_per_s else 0.0
        self._free_ns = 0.0  # when the bottleneck has sent all that it has
        self._waiting: deque[tuple[int, bytes]] = deque()

    def push(self, now_ns: int, packet: bytes) -> None:
        """A packet has come; it is counted when it will be delivered."""
        start_ns = max(float(now_ns), self._free_ns)
        if start_ns - now_ns > BACKLOG_S * 1e9:
            self.num_dropped += 1
            return
        self._free_ns = start_ns + len(packet) * self._ns_per_byte
        self.num_packets += 1
        self.num_bytes += len(packet)
        self._waiting.append((round(self._free_ns) + self._delay_ns, packet))

    def due_ns(self) -> int | None:
        """When the next packet must go out; None when none waits."""
        return self._waiting[0][0] if self._waiting else None

    def pop(self, now_ns: int) -> bytes | None:
        """The next packet, if it is due."""
        if self._waiting and self._waiting[0][0] <= now_ns:
            return self._waiting.popleft()[1]
        return None
