import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.bench.server_timing import durations_ms
from tightloop.server.timing import server_timing_header


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("", {}),
        ("db;dur=53.2", {"db": 53.2}),
        ("db;dur=53, app;dur=47.2", {"db": 53.0, "app": 47.2}),
        ('cache;desc="hit, warm";dur="23.2"', {"cache": 23.2}),
        ('cache;desc="a \\"b\\";dur=9",miss,cpu ; DUR = 2', {"cpu": 2.0}),
        ("total;dur=1, total;dur=2", {"total": 1.0}),
        ("a;dur=, b;dur=x;dur=3, c;dur=-1, d;dur=inf, e;dur=nan", {}),
        ('a;dur=1, b;desc="no end, c;dur=2', {"a": 1.0}),
    ],
)
def test_durations(field: str, expected: dict[str, float]) -> None:
    """By name; quoted commas separate nothing, and what breaks the grammar ends the reading."""
    assert durations_ms(field) == expected


def test_our_own_header_is_read() -> None:
    keys = ("server_s", "queue_s", "prefill_s", "decode_s", "engine_first_token_s")
    said = server_timing_header(dict.fromkeys(keys, 0.0125), {"backend": 'one, "two"'})
    assert durations_ms(said) == dict.fromkeys(
        ("server", "queue", "prefill", "decode", "first-token"), 12.5
    )


@given(st.text(alphabet=' ,;="\\.durDUR0129ab-\t', max_size=60))
def test_any_text_gives_durations(field: str) -> None:
    """Never an error, whatever a server writes."""
    assert all(math.isfinite(each) and each >= 0 for each in durations_ms(field).values())
