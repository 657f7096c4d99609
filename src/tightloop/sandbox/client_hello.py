"""The server name in the first bytes of a TLS connection.

Facts: RFC 8446 section 4.1.2 (ClientHello) and 5.1 (records), RFC 6066 section 3 (server_name).
Nothing is decrypted: the name travels in the clear, and it is what a shared front end routes by.
"""

from dataclasses import dataclass
from typing import Final

MAX_HELLO_BYTES: Final = 1 << 16
_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0


class NotTlsError(ValueError):
    """These bytes do not begin a TLS connection."""


@dataclass(frozen=True, slots=True)
class Hello:
    """``server_name`` as sent, None when there is none."""

    server_name: str | None


class _Reader:
    """Takes fields off the front; running out of bytes is malformed input."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, num_bytes: int) -> bytes:
        piece = self._data[self._at : self._at + num_bytes]
        if len(piece) < num_bytes:
            raise NotTlsError("a field reaches past the end of the ClientHello")
        self._at += num_bytes
        return piece

    def number(self, num_bytes: int) -> int:
        return int.from_bytes(self.take(num_bytes), "big")

    def block(self, num_length_bytes: int) -> bytes:
        return self.take(self.number(num_length_bytes))

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._data)


def read_hello(data: bytes) -> Hello | None:
    """The hello that ``data`` begins with; None while bytes are missing.

    Raises NotTlsError as soon as the bytes cannot become a hello.
    """
    message = _handshake_message(data)
    if message is None:
        return None
    reader = _Reader(message)
    reader.take(2 + 32)  # legacy version, random
    reader.block(1)  # session id
    reader.block(2)  # cipher suites
    reader.block(1)  # compression methods
    if reader.is_at_end:
        return Hello(None)
    extensions = _Reader(reader.block(2))
    names: list[str] = []
    while not extensions.is_at_end:
        kind, body = extensions.number(2), extensions.block(2)
        if kind == _SERVER_NAME:
            names += _host_names(body)
    if len(names) > 1:
        raise NotTlsError("more than one server name")
    return Hello(names[0] if names else None)


def _handshake_message(data: bytes) -> bytes | None:
    """The body of the first handshake message, put together from its records."""
    collected = b""
    at = 0
    while True:
        record = data[at : at + 5]
        if record[:1] and record[0] != _HANDSHAKE:
            raise NotTlsError("not a TLS handshake record")
        if record[1:2] and record[1] != 3:
            raise NotTlsError("not a TLS version")
        if len(record) == 5:
            collected += data[at + 5 : at + 5 + int.from_bytes(record[3:5], "big")]
        if collected and collected[0] != _CLIENT_HELLO:
            raise NotTlsError("the first message is not a ClientHello")
        if len(collected) >= 4:
            length = int.from_bytes(collected[1:4], "big")
            if length > MAX_HELLO_BYTES:
                raise NotTlsError(f"a ClientHello of {length} bytes")
            if len(collected) >= 4 + length:
                return collected[4 : 4 + length]
        num_record = int.from_bytes(record[3:5], "big") if len(record) == 5 else 0
        at += 5 + num_record
        if len(record) < 5 or at > len(data):
            return None
        if num_record == 0:
            raise NotTlsError("an empty record")


def _host_names(body: bytes) -> list[str]:
    names = []
    entries = _Reader(_Reader(body).block(2))
    while not entries.is_at_end:
        kind, name = entries.number(1), entries.block(2)
        if kind == _HOST_NAME:
            try:
                names.append(name.decode("ascii"))
            except UnicodeDecodeError as error:
                raise NotTlsError("a server name that is not ASCII") from error
    return names
