import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.protocol.surrogates import has_surrogate_escape, replace_lone_surrogates


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'"\ud83d"', r'"\ufffd"'),
        (r'"\uDC00 \uD83D"', r'"\ufffd \ufffd"'),
        (r'"\ud83d\ude00"', r'"\ud83d\ude00"'),
        (r'"\ud83d\ud83d\ude00"', r'"\ufffd\ud83d\ude00"'),
        (r'"\\ud83d"', r'"\\ud83d"'),
        (r'"\\\ud83d"', r'"\\\ufffd"'),
        (r'"\ud83d\n\u00e9"', r'"\ufffd\n\u00e9"'),
    ],
)
def test_only_half_characters_are_replaced(text: str, expected: str) -> None:
    assert replace_lone_surrogates(text) == expected
    assert replace_lone_surrogates(text.encode()) == expected


def test_the_cheap_question_comes_first() -> None:
    assert has_surrogate_escape(rb"\ud83d")
    assert has_surrogate_escape(r"\uD83D")
    assert not has_surrogate_escape(b"x")
    assert not has_surrogate_escape("x")


@given(st.text(st.characters()))
@settings(max_examples=60, deadline=None)
def test_what_was_whole_stays_and_the_rest_becomes_encodable(text: str) -> None:
    repaired = json.loads(replace_lone_surrogates(json.dumps(text)))
    assert (
        repaired.encode()
        == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    )
