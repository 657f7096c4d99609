"""The server name of a TLS connection, from the bytes of a real client."""

import ssl
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.sandbox.client_hello import Hello, NotTlsError, read_hello


def hello_of(name: str | None) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def in_records(hello: bytes, num_bytes: int) -> bytes:
    """The same message in records of this size."""
    message = hello[5:]
    pieces = [message[at : at + num_bytes] for at in range(0, len(message), num_bytes)]
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(piece)) + piece for piece in pieces)


def test_the_name_of_a_real_client() -> None:
    assert read_hello(hello_of("pypi.org")) == Hello("pypi.org")
    assert read_hello(hello_of(None)) == Hello(None)


def test_every_beginning_of_it_waits_for_more() -> None:
    """And what follows the hello changes nothing."""
    hello = hello_of("pypi.org")
    for length in range(len(hello)):
        assert read_hello(hello[:length]) is None
    assert read_hello(hello + b"more") == Hello("pypi.org")


@pytest.mark.parametrize("num_bytes", [1, 3, 100])
def test_a_hello_in_several_records(num_bytes: int) -> None:
    """Some programs cut it so that filters cannot read the name."""
    assert read_hello(in_records(hello_of("pypi.org"), num_bytes)) == Hello("pypi.org")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"SSH-2.0-x",
        b"\x16\x02",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x00\x04\x02\0\0\0",
    ],
)
def test_other_protocols_are_told_by_their_first_bytes(data: bytes) -> None:
    with pytest.raises(NotTlsError):
        read_hello(data)


def test_two_names_are_refused() -> None:
    """Two readers could take different ones."""
    entry = b"\0" + struct.pack(">H", 1) + b"a"
    names = struct.pack(">H", 2 * len(entry)) + 2 * entry
    extension = struct.pack(">HH", 0, len(names)) + names
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\2\x13\x01" + b"\1\0"
    body += struct.pack(">H", len(extension)) + extension
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    with pytest.raises(NotTlsError, match="more than one"):
        read_hello(b"\x16\x03\x01" + struct.pack(">H", len(message)) + message)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_any_bytes_give_a_hello_or_the_one_error(data: bytes, at: int) -> None:
    """Random bytes, also in the middle of a real hello."""
    hello = hello_of("pypi.org")
    for candidate in (data, hello[:at] + data + hello[at + len(data) :]):
        try:
            read_hello(candidate)
        except NotTlsError:
            continue
