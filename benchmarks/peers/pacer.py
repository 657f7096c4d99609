"""Calls at absolute deadlines, many at a time, from one timer of the kernel.

``asyncio`` sleeps in milliseconds; a timerfd wakes the loop within some tens of microseconds of a
deadline on the monotonic clock. Linux only, as is all of this benchmark.
"""

import asyncio
import ctypes
import heapq
import os
from collections.abc import Callable

from tightloop.trace.clock import now_ns

CLOCK_MONOTONIC = 1
TFD_TIMER_ABSTIME = 1
SECOND_NS = 1_000_000_000

Due = Callable[[int], "int | None"]
"""Told the time; does what is due and says when it wants to be called next (None: never)."""


class Pacer:
    """Deadlines of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._spec = (ctypes.c_int64 * 4)()  # interval s, ns; first expiry s, ns
        self._address = ctypes.addressof(self._spec)
        self._set = self._libc.timerfd_settime
        self._set.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self._heap: list[tuple[int, int, Due]] = []
        self._num_added = 0
        self._armed_ns = 0
        loop.add_reader(self._descriptor, self._expired)

    def at(self, due_ns: int, call: Due) -> None:
        """Have ``call`` called once ``due_ns`` has come, soon if it is past."""
        self._push(due_ns, call)
        self._arm()

    def close(self) -> None:
        """No further calls."""
        self._heap.clear()
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _expired(self) -> None:
        os.read(self._descriptor, 8)
        self._armed_ns = 0
        heap = self._heap
        while heap and heap[0][0] <= (time_ns := now_ns()):
            call = heapq.heappop(heap)[2]
            next_ns = call(time_ns)
            if next_ns is not None:
                self._push(next_ns, call)
        self._arm()

    def _push(self, due_ns: int, call: Due) -> None:
        self._num_added += 1  # so that no two calls are compared
        heapq.heappush(self._heap, (due_ns, self._num_added, call))

    def _arm(self) -> None:
        if not self._heap:
            return
        due_ns = max(self._heap[0][0], 1)
        if due_ns == self._armed_ns:
            return
        self._armed_ns = due_ns
        self._spec[2], self._spec[3] = divmod(due_ns, SECOND_NS)
        if self._set(self._descriptor, TFD_TIMER_ABSTIME, self._address, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")
