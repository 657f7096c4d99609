import pytest

from tightloop.agent.terminal.width import cells, fitting


@pytest.mark.parametrize(
    ("text", "columns"),
    [("", 0), ("abc", 3), ("日本", 4), ("é", 1), ("e\u0301", 1), ("👍", 2), ("─…", 2)],
)
def test_columns_of_text(text: str, columns: int) -> None:
    """East Asian characters and emoji take up two, marks none."""
    assert columns == cells(text)


def test_what_fits() -> None:
    """A wide character fits as a whole or not at all; a mark goes with its character."""
    assert fitting("abcdef", 3) == 3
    assert fitting("abcdef", 3, 2) == 5
    assert fitting("abcdef", 9) == 6
    assert fitting("abc", 0) == 0
    assert fitting("日本", 3) == 1
    assert fitting("e\u0301x", 1) == 2
