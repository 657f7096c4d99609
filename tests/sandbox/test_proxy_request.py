"""The head of a request to a proxy: one meaning, or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.sandbox.proxy_request import BadRequest, Request, read_request


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def test_a_tunnel() -> None:
    """The Host line may leave the port out."""
    wanted = Request("CONNECT", "pypi.org", 443)
    assert read_request(head("CONNECT pypi.org:443 HTTP/1.1", "Host: pypi.org:443")) == wanted
    assert read_request(head("CONNECT pypi.org:443 HTTP/1.1", "host: PyPI.org")) == wanted
    assert read_request(head("CONNECT pypi.org:443 HTTP/1.0")) == wanted
    assert wanted.is_tunnel


def test_a_plain_request_is_worded_anew_for_the_server() -> None:
    """With the path alone, its own Host line, and nothing that was meant for the proxy."""
    request = read_request(
        head(
            "POST http://a.test:8080/x?y=1#z HTTP/1.1",
            "Host: a.test:8080",
            "Accept: */*",
            "Proxy-Authorization: Basic x",
            "Connection: close, X-Secret",
            "X-Secret: 1",
            "Content-Length: 12",
        )
    )
    assert request == Request(
        "POST",
        "a.test",
        8080,
        head(
            "POST /x?y=1 HTTP/1.1",
            "Host: a.test:8080",
            "Accept: */*",
            "Content-Length: 12",
            "Connection: close",
        ),
        12,
    )


@pytest.mark.parametrize(
    ("target", "path"),
    [("http://a.test", "/"), ("HTTP://a.test?x", "/?x"), ("http://a.test/#f", "/")],
)
def test_targets_without_a_path(target: str, path: str) -> None:
    request = read_request(head(f"GET {target} HTTP/1.1", "Host: a.test"))
    assert (request.host, request.port) == ("a.test", 80)
    assert request.head.startswith(f"GET {path} HTTP/1.1\r\nHost: a.test\r\n".encode())


def test_what_connection_names_cannot_take_the_length_away() -> None:
    """The server would take the body for a second request."""
    request = read_request(
        head("PUT http://a.test/ HTTP/1.1", "Content-Length: 5", "Connection: content-length")
    )
    assert b"Content-Length: 5\r\n" in request.head


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["\x05\x01\x00"], 400),  # SOCKS
        (["GET / HTTP/1.1", "Host: a.test"], 400),
        (["GET https://a.test/ HTTP/1.1"], 400),
        (["GET http://a.test/ HTTP/2"], 505),
        (["GET  http://a.test/ HTTP/1.1"], 400),
        (["GET http://user@a.test/ HTTP/1.1"], 400),
        (["GET http://a.test:0/ HTTP/1.1"], 400),
        (["GET http://a.test:99999/ HTTP/1.1"], 400),
        (["GET http:///x HTTP/1.1"], 400),
        (["CONNECT a.test HTTP/1.1"], 400),
        (["CONNECT http://a.test:443 HTTP/1.1"], 400),
        (["GET http://a.test/ HTTP/1.1", "Host: b.test"], 403),
        (["GET http://a.test/ HTTP/1.1", "Host: a.test:81"], 403),
        (["CONNECT a.test:443 HTTP/1.1", "Host: b.test:443"], 403),
        (["GET http://a.test/ HTTP/1.1", "Host: a.test", "Host: a.test"], 400),
        (["GET http://a.test/ HTTP/1.1", " folded: x"], 400),
        (["GET http://a.test/ HTTP/1.1", "Name : x"], 400),
        (["GET http://a.test/ HTTP/1.1", "X: a\nHost: b.test"], 400),
        (["GET http://a.test/\rx HTTP/1.1"], 400),
        (["POST http://a.test/ HTTP/1.1", "Transfer-Encoding: chunked"], 411),
        (["POST http://a.test/ HTTP/1.1", "Content-Length: 1", "Content-Length: 1"], 400),
        (["POST http://a.test/ HTTP/1.1", "Content-Length: +1"], 400),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(lines: list[str], status: int) -> None:
    with pytest.raises(BadRequest) as refused:
        read_request(head(*lines))
    assert refused.value.status == status


@given(st.binary(max_size=120), st.integers(0, 60))
def test_any_bytes_give_a_request_or_the_one_error(data: bytes, at: int) -> None:
    """And what goes on has the lines that were asked for, no more."""
    plain = head("GET http://a.test/x HTTP/1.1", "Host: a.test", "A: b")
    for candidate in (data, plain[:at] + data + plain[at:]):
        whole = candidate.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        try:
            request = read_request(whole)
        except BadRequest:
            continue
        if not request.is_tunnel:
            assert request.head.count(b"\r\n\r\n") == 1
            assert request.head.count(b"\r\nHost: ") == 1
            assert b"\0" not in request.head
