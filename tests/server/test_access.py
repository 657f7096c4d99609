"""Access: open servers are local ones, and a bad key is a 401."""

import pytest

from tightloop.governance.keys import KeyRing
from tightloop.protocol.errors import ApiError
from tightloop.server.access import Access, client_of, is_loopback


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_loopback_is_recognised(host: str, expected: bool) -> None:
    """A name that might resolve to anything is not loopback."""
    assert is_loopback(host) is expected


def test_a_reachable_server_needs_a_key() -> None:
    """The refusal says what to do."""
    with pytest.raises(ValueError, match=r"refusing to listen on 0\.0\.0\.0.*--api-key"):
        Access(KeyRing(), "0.0.0.0")
    Access(KeyRing(["k"]), "0.0.0.0").check({"Authorization": "Bearer k"})


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer k"},
        {"x-api-key": "k"},
        {"x-api-key": "k", "Authorization": "Bearer of-something-else"},
        {"x-api-key": "of-something-else", "Authorization": "Bearer k"},
    ],
)
def test_a_key_comes_in_either_header(headers: dict[str, str]) -> None:
    """OpenAI's clients use the one, Anthropic's the other, and some send both."""
    Access(KeyRing(["k"]), "127.0.0.1").check(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"x-api-key": "wrong"},
        {"x-api-key": ""},
        {"x-api-key": "Bearer k"},
    ],
)
def test_with_keys_a_wrong_one_is_refused_on_loopback_too(headers: dict[str, str]) -> None:
    """Configured means enforced."""
    with pytest.raises(ApiError) as caught:
        Access(KeyRing(["k"]), "127.0.0.1").check(headers)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("origin", "is_refused"),
    [
        (None, False),
        ("http://localhost:3000", False),
        ("http://127.0.0.1", False),
        ("https://evil.example", True),
        ("http://127.0.0.1.evil.example", True),
        ("null", True),
        ("http://[", True),
        ("", True),
    ],
)
def test_without_keys_pages_of_other_sites_are_refused(
    origin: str | None, is_refused: bool
) -> None:
    """Agents send no Origin; a browser always does on a socket."""
    headers = {} if origin is None else {"Origin": origin}
    access = Access(KeyRing(), "127.0.0.1")
    if not is_refused:
        access.check(headers)
        return
    with pytest.raises(ApiError) as caught:
        access.check(headers)
    assert caught.value.status == 403


def test_clients_with_different_keys_are_told_apart() -> None:
    """Whichever header the key is in, and whatever stands in the other one."""
    bearer = {"Authorization": "Bearer dummy"}
    clients = [
        {},
        bearer,
        {"x-api-key": "a"},
        {"x-api-key": "b"},
        {**bearer, "x-api-key": "a"},
        {**bearer, "x-api-key": "b"},
    ]
    found = [client_of(headers) for headers in clients]
    assert len(set(found)) == len(clients)
    assert found == [client_of(headers) for headers in clients]
    assert found[0] == ""
