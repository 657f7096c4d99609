"""When a server looks for garbage in cycles: while nobody waits for a token.

A full collection of the interpreter walks over every object that turns and connections have made, tens of
thousands of them with cold caches, and no stream moves meanwhile: up to 380 ms with 256 streams on a busy
machine, for 200 objects found in six of them. Young objects are looked at as ever, which takes a fraction of
a millisecond and finds nearly all there is.
"""

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

LOOK_EVERY_S: Final = 1.0
"""Nothing was running twice in a row, this far apart: then a collection is in nobody's way."""

DUE: Final = 10
"""Collections of the middle generation after which the interpreter would do a full one by itself."""

NEVER_IDLE: Final = 100
"""So many of them, 700,000 objects made and kept, bring a full one to a server that is never idle: a client
that hangs up can leave some twenty objects in a cycle, and they must not fill the memory."""


class Collector(Protocol):
    """What is used of the module ``gc``."""

    def collect(self) -> int:
        """A full collection."""

    def enable(self) -> None:
        """Collections happen by themselves."""

    def disable(self) -> None:
        """None does."""

    def isenabled(self) -> bool:
        """Whether they happen."""

    def freeze(self) -> None:
        """All objects of now are left out of later collections."""

    def unfreeze(self) -> None:
        """They are not any longer."""

    def get_count(self) -> tuple[int, int, int]:
        """The third is how often the middle generation was collected since the last full one."""

    def get_threshold(self) -> tuple[int, int, int]:
        """At which counts each generation is collected."""

    def set_threshold(self, young: int, middle: int, full: int, /) -> None:
        """Other ones from now on."""


@contextmanager
def without_collections(collector: Collector = gc) -> Iterator[None]:
    """For imports: a seventh of what they take is collections, and what they make stays."""
    was_enabled = collector.isenabled()
    collector.disable()
    try:
        yield
    finally:
        if was_enabled:
            collector.enable()


class IdleCollections:
    """Full collections of this process while ``is_idle``; between ``start`` and ``stop``.

    For a program that is a server and nothing else: thresholds hold for the whole process.
    """

    def __init__(self, is_idle: Callable[[], bool], collector: Collector = gc) -> None:
        self._is_idle = is_idle
        self._gc = collector
        self._was_idle = False
        self._before = collector.get_threshold()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """What lives now lives to the end, and is never looked at again. Called on the event loop.

        So do 2,000 objects of garbage that imports leave: finding them takes 26 to 43 ms of a start.
        """
        self._gc.freeze()
        young, middle, _ = self._before
        self._gc.set_threshold(young, middle, NEVER_IDLE)
        self._set()

    def stop(self) -> None:
        """As before ``start``. Nothing happens if it was not called."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._gc.set_threshold(*self._before)
            self._gc.unfreeze()

    def look(self) -> bool:
        """Collect if it is due and nobody waits; whether it was done."""
        was_idle, self._was_idle = self._was_idle, self._is_idle()
        if not (was_idle and self._was_idle) or self._gc.get_count()[2] < DUE:
            return False
        self._gc.collect()
        return True

    def _set(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._tick)

    def _tick(self) -> None:
        self.look()
        self._set()
