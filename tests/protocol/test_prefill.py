"""Hints about growing output: read leniently, written briefly, never answered."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.protocol.prefill import (
    Prefill,
    capabilities_of,
    decode_prefill,
    prefill_event,
)
from tightloop.protocol.requests import RequestDecoder
from tightloop.protocol.websocket_mode import ClientEventDecoder, ResponsePrefill

PLAIN = {"type": "response.prefill", "previous_response_id": "resp_1", "call_id": "call_1"}


def decoded(event: object) -> Prefill | None:
    return decode_prefill(orjson.dumps(event), RequestDecoder(websocket=True))


@given(
    st.builds(
        Prefill,
        previous_response_id=st.text(),
        call_id=st.text(),
        delta=st.text(),
        offset=st.integers(0, 1 << 40),
        done=st.booleans(),
        stream_id=st.none() | st.from_regex(r"[A-Za-z0-9_.-]{1,9}", fullmatch=True),
    )
)
def test_what_is_written_is_read(hint: Prefill) -> None:
    """Also as an event among others."""
    assert hint == decoded(prefill_event(hint))
    event = ClientEventDecoder().decode(orjson.dumps(prefill_event(hint)))
    assert ResponsePrefill(hint) == event


def test_a_plain_hint_says_little() -> None:
    """Tools and instructions are those of the parent unless a model is named."""
    hint = decoded(PLAIN)
    assert hint == Prefill("resp_1", "call_1")
    settings = {"model": "m", "instructions": "be brief", "tools": []}
    hint = decoded({**PLAIN, **settings})
    assert hint is not None
    assert hint.settings is not None
    assert (hint.settings.model, hint.settings.instructions) == ("m", "be brief")


@pytest.mark.parametrize(
    "change",
    [
        {"call_id": 7},
        {"previous_response_id": None},
        {"offset": -1},
        {"offset": "0"},
        {"delta": ["a"]},
        {"stream_id": "a b"},
        {"model": 7},
        {"model": "m", "tools": 3},
    ],
)
def test_a_malformed_hint_is_none(change: dict[str, object]) -> None:
    """An error event could be taken for the refusal of the create that comes next."""
    assert decoded({**PLAIN, **change}) is None


def test_names_in_the_header() -> None:
    assert frozenset({"response.prefill", "x"}) == capabilities_of("response.prefill, x,")
    assert frozenset() == capabilities_of(None)
