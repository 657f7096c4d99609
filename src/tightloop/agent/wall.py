"""The wall time that a turn may take, which stands still while a person is asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Wall:
    """For the turns of one conversation, one after the other."""

    def __init__(self) -> None:
        self._timeout: asyncio.Timeout | None = None
        self._num_holds = 0
        self._rest_s = 0.0

    @asynccontextmanager
    async def limited(self, limit_s: float) -> AsyncIterator[None]:
        """Raises TimeoutError when the block takes longer, held time not counted."""
        self._num_holds = 0
        try:
            async with asyncio.timeout(limit_s) as self._timeout:
                yield
        finally:
            self._timeout = None

    def hold(self, is_held: bool) -> None:
        """Stand still from now on, or go on. What is held twice goes on after the second release."""
        timeout = self._timeout
        if timeout is None or timeout.expired():
            return
        now_s = asyncio.get_running_loop().time()
        if is_held:
            self._num_holds += 1
            when = timeout.when()
            if self._num_holds == 1 and when is not None:
                self._rest_s = when - now_s
                timeout.reschedule(None)
        elif self._num_holds:
            self._num_holds -= 1
            if not self._num_holds:
                timeout.reschedule(now_s + self._rest_s)
