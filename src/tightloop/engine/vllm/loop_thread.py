"""An event loop in a thread of its own: vLLM's client side is asyncio, an engine's owner is a thread."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs a loop until ``close``."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` returns or raises; waits for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def soon(self, callback: Callable[..., object], *arguments: object) -> None:
        """``callback`` runs on the loop; nobody waits."""
        self._loop.call_soon_threadsafe(callback, *arguments)

    def close(self) -> None:
        """Every task is cancelled and has ended. May be called twice."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
