import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tests.strategies import json_values
from tightloop.protocol.errors import ApiError, api_error_from_wire
from tightloop.protocol.items import user_message
from tightloop.protocol.requests import decode_request
from tightloop.protocol.websocket_mode import (
    ClientEventDecoder,
    ResponseCancel,
    ResponseCreate,
    ResponseInterrupt,
    ResponseSteer,
    UnknownEvent,
    binary_frame_error,
    error_event,
    http_error_body,
    retry_headers,
    unknown_event_error,
)

LIMIT = ApiError(
    "Please try again in 1.2s.",
    status=429,
    error_type="rate_limit_error",
    code="rate_limit_exceeded",
    retry_after_s=1.2,
)


def test_each_client_event() -> None:
    create = {"type": "response.create", "model": "m", "stream_id": "a", "generate": False}
    frames: dict[str, Any] = {
        json.dumps(create): ResponseCreate(decode_request(json.dumps(create), websocket=True)),
        '{"type":"response.cancel","response_id":"r"}': ResponseCancel("r"),
        '{"type":"response.interrupt","response_id":"r"}': ResponseInterrupt("r"),
        '{"type":"response.steer","previous_response_id":"r","input":"x"}': ResponseSteer(
            "r", (user_message("x"),), Raw(b'"x"')
        ),
        '{"type":"tightloop:x","a":1}': UnknownEvent(
            "tightloop:x", b'{"type":"tightloop:x","a":1}'
        ),
    }
    decoder = ClientEventDecoder()
    for frame, expected in frames.items():
        assert decoder.decode(frame) == expected
        assert decoder.decode(frame.encode()) == expected


@pytest.mark.parametrize(
    ("frame", "param"),
    [
        ("{}", "type"),
        ('{"type":3}', "type"),
        ("[]", None),
        ("x", None),
        ('{"type":"response.create"}', "model"),
        ('{"type":"response.create","model":"m","stream_id":" "}', "stream_id"),
        ('{"type":"response.cancel","response_id":3}', "response_id"),
        ('{"type":"response.steer","input":"x"}', "previous_response_id"),
    ],
)
def test_a_bad_frame_is_refused_with_the_field(frame: str, param: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        ClientEventDecoder().decode(frame)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_half_a_character_in_a_frame_is_repaired() -> None:
    frame = r'{"type":"response.create","model":"m","input":"\ud83d"}'
    event = ClientEventDecoder().decode(frame)
    assert isinstance(event, ResponseCreate)
    assert event.request.input == (user_message("\ufffd"),)


def test_errors_on_the_socket_are_nested_and_carry_status_lane_and_wait() -> None:
    event = json.loads(error_event(LIMIT, "lane-a"))
    assert event == {
        "type": "error",
        "status": 429,
        "error": LIMIT.body(),
        "headers": {"retry-after": "2"},
        "stream_id": "lane-a",
    }
    assert set(json.loads(error_event(unknown_event_error("x")))) == {"type", "status", "error"}
    assert "binary" in binary_frame_error().message


def test_errors_over_http() -> None:
    assert json.loads(http_error_body(LIMIT)) == {"error": LIMIT.body()}
    assert retry_headers(LIMIT) == {"retry-after": "2"}
    assert retry_headers(ApiError("x")) == {}


def test_a_client_reads_back_what_a_server_refused() -> None:
    for raw in (error_event(LIMIT), http_error_body(LIMIT)):
        error = api_error_from_wire(json.loads(raw), status=429)
        assert (error.status, error.code, error.message) == (429, LIMIT.code, LIMIT.message)


@pytest.mark.parametrize("given", ["[]", '[{"role":"system","content":"x"}]', "3"])
def test_a_steer_with_a_wrong_input_keeps_it_to_give_it_back(given: str) -> None:
    """It is answered with an event of its own, not with an error."""
    event = ClientEventDecoder().decode(
        f'{{"type":"response.steer","previous_response_id":"r","input":{given}}}'
    )
    assert ResponseSteer("r", (), Raw(given.encode()), is_valid=False) == event


def test_a_steer_that_is_no_utf8_is_refused() -> None:
    """What is given back must be a legal text frame."""
    with pytest.raises(ApiError) as caught:
        ClientEventDecoder().decode(
            b'{"type":"response.steer","previous_response_id":"r","input":"\xff"}'
        )
    assert (caught.value.code, caught.value.param) == ("invalid_json", "input")


def outcome(frame: str) -> object:
    try:
        return ClientEventDecoder().decode(frame)
    except ApiError as error:
        return error.body()


@pytest.mark.parametrize(
    "fields",
    [
        '"model":"m","input":"hi","tools":[],"stream_id":"a"',
        '"model":"m","input":"hi","type":"response.cancel","stream_id":"a"',
        '"model":"m","input":"hi","type":"response.cr\\u0065ate"',
        '"model":"m","input":"hi","type":7',
        '"model":"m","input":"\\ud800"',
        '"model":7',
        '"model":"m","input":[{"type":"message"}]',
        '"model":"m","stream_id":"not a name"',
        '"model":"m"',
    ],
)
@pytest.mark.parametrize("end", ["}", "", "]"])
def test_the_short_way_to_a_create_changes_nothing(fields: str, end: str) -> None:
    """A create that begins with its type is read at once, any other after a look at its type."""
    begins_with_type = f'{{"type":"response.create",{fields}{end}'
    looked_at_first = f'{{"type" :"response.create",{fields}{end}'
    expected, got = outcome(looked_at_first), outcome(begins_with_type)
    assert without_place(expected) == without_place(got)


def without_place(given: object) -> str:
    """Messages of bad JSON name a byte, and the two forms differ by one."""
    return re.sub(r"\(byte \d+\)", "", repr(given))


TYPES = st.sampled_from(["response.create", "response.cancel", "response.steer", "x"])


@given(TYPES, st.dictionaries(st.sampled_from(["model", "input", "stream_id"]), json_values))
@settings(max_examples=60, deadline=None)
def test_any_frame_gives_an_event_or_the_documented_error(kind: str, fields: Any) -> None:
    status = 400
    try:
        ClientEventDecoder().decode(json.dumps({**fields, "type": kind}))
    except ApiError as error:
        status = error.status
    assert status == 400
