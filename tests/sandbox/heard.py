"""A listener for output that a test can wait with."""

import asyncio


class Heard:
    """Collects pieces; ``until`` waits for a text among them."""

    def __init__(self) -> None:
        self.data = b""
        self._came = asyncio.Event()

    def __call__(self, piece: bytes) -> None:
        self.data += piece
        self._came.set()

    async def until(self, text: str) -> None:
        """The text has been heard."""
        while text.encode() not in self.data:
            self._came.clear()
            await self._came.wait()
