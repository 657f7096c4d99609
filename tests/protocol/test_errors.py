import json
from typing import Any

import msgspec
import pytest

from tightloop.protocol.errors import (
    MAX_MESSAGE_CHARS,
    ApiError,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    api_error_from_wire,
    from_validation_error,
    shorten,
)


class Inner(msgspec.Struct):
    number: int


class Outer(msgspec.Struct):
    inner: list[Inner]


def test_one_root() -> None:
    for kind in (ApiError, LocalProtocolError, RemoteProtocolError):
        assert issubclass(kind, ProtocolError)


def test_a_body_never_repeats_a_large_request() -> None:
    body = ApiError("x" * 100_000).body()
    assert len(body["message"]) == MAX_MESSAGE_CHARS
    assert body["message"].endswith("[... shortened]")
    assert shorten("short") == "short"


def test_a_remote_error_becomes_a_refusal() -> None:
    error = RemoteProtocolError("late", status=409, param="x").as_api_error()
    assert (error.status, error.param, error.message) == (409, "x", "late")


@pytest.mark.parametrize(
    ("raw", "where", "param", "code"),
    [
        (b'{"inner":[{}]}', "", "inner[0].number", "missing_required_parameter"),
        (b'{"inner":[{}]}', "a[2]", "a[2].inner[0].number", "missing_required_parameter"),
        (b'{"inner":[{"number":"x"}]}', "", "inner[0].number", "invalid_type"),
        (b"{}", "", "inner", "missing_required_parameter"),
        (b"[]", "", None, "invalid_type"),
        (b"[]", "a", "a", "invalid_type"),
        (b"{", "", None, "invalid_json"),
        (b'{"inner":"\xff"}', "", "inner", "invalid_type"),
    ],
)
def test_the_field_at_fault_is_named(raw: bytes, where: str, param: str | None, code: str) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(raw, type=Outer)
    error = from_validation_error(caught.value, where)
    assert (error.param, error.code) == (param, code)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (
            {"error": {"message": "m", "type": "t", "code": "c", "param": "p"}},
            ("m", 418, "t", "c", "p", None),
        ),
        (
            {
                "type": "error",
                "status": 429,
                "error": {"message": "m", "type": "rate_limit_error"},
                "headers": {"retry-after": "2"},
            },
            ("m", 429, "rate_limit_error", None, None, 2.0),
        ),
        (
            {"type": "error", "code": "server_error", "message": "m", "param": None},
            ("m", 418, "invalid_request_error", "server_error", None, None),
        ),
        ({"error": "m"}, ("m", 418, "invalid_request_error", None, None, None)),
    ],
)
def test_every_shape_on_the_wire_is_read(
    payload: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    error = api_error_from_wire(json.loads(json.dumps(payload)), status=418)
    found = (error.message, error.status, error.error_type, error.code, error.param)
    assert (*found, error.retry_after_s) == expected


@pytest.mark.parametrize(
    "payload", [None, [], "x", {"error": 3}, {"headers": {"retry-after": "x"}}]
)
def test_nonsense_is_still_a_refusal(payload: object) -> None:
    error = api_error_from_wire(payload, status=503, retry_after_s=4.0)
    assert (error.status, error.error_type, error.retry_after_s) == (503, "server_error", 4.0)
    assert "503" in error.message
