"""Reading predictions, in every form and in none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.protocol.errors import ApiError
from tightloop.protocol.prediction import decode_prediction


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ({"type": "content", "content": "abc"}, "abc"),
        ({"type": "content", "content": ""}, None),
        ({"type": "content", "content": []}, None),
        (
            {
                "type": "content",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            "ab",
        ),
    ],
)
def test_its_text_is_read(value: object, text: str | None) -> None:
    assert text == decode_prediction(value)


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("abc", "prediction"),
        ({"type": "other", "content": "abc"}, "prediction"),
        ({"type": "content"}, "prediction.content"),
        ({"type": "content", "content": 1}, "prediction.content"),
        ({"type": "content", "content": [{"type": "image"}]}, "prediction.content[0]"),
        (
            {"type": "content", "content": [{"type": "text", "text": "a"}, {"type": "text"}]},
            "prediction.content[1]",
        ),
    ],
)
def test_what_is_none_is_refused_by_its_place(value: object, param: str) -> None:
    with pytest.raises(ApiError) as refused:
        decode_prediction(value)
    assert (refused.value.code, refused.value.param) == ("invalid_value", param)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abc", max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(("type", "content", "text", "x")), inner, max_size=3)
    ),
    max_leaves=8,
)


def read(value: object) -> str:
    """Its text, empty for none, or the field at fault."""
    try:
        return decode_prediction(value) or ""
    except ApiError as error:
        return f"at {error.param}"


@given(json_values.map(read))
def test_any_value_is_text_or_refused(found: str) -> None:
    """Never another exception; a refusal says where."""
    assert not found.startswith("at ") or found.startswith("at prediction")
