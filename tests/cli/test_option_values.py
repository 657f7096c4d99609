"""Values of options: what is taken, and how the rest is refused."""

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.cli.option_values import (
    MAX_BYTES,
    early_end,
    port,
    positive,
    positive_seconds,
    size_bytes,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("268435456", 256 << 20),
        ("256MiB", 256 << 20),
        ("1.5GiB", 3 << 29),
        ("2 GB", 2_000_000_000),
        ("64kB", 64_000),
        ("1024TiB", MAX_BYTES),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Decimal and binary units, or bytes."""
    assert size_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "-1", "GiB", "1e9", "2 GiBs", "2gib", "1,5GB", "9999TiB", "٣MB", "nan", "1.5"]
)
def test_what_is_no_size_is_named(text: str) -> None:
    """With what would do."""
    with pytest.raises(argparse.ArgumentTypeError, match=r"^must be .*got ") as caught:
        size_bytes(text)
    assert repr(text) in str(caught.value)


def test_when_a_response_ends_early() -> None:
    """From so many tokens on, or never."""
    assert [early_end(text) for text in ("never", "0", "2.5")] == [None, 0, 2.5]


@given(st.text(max_size=30))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    """Never another exception: it would be a traceback for a typing mistake."""
    kinds = ((port, 65535), (positive, None), (size_bytes, MAX_BYTES), (positive_seconds, None))
    for read, most in kinds:
        try:
            value = read(text)
        except argparse.ArgumentTypeError:
            continue
        assert value >= 0
        assert most is None or value <= most
