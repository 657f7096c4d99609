"""P13: what a command prints cannot drive the terminal."""

import pytest

from tightloop.agent.terminal.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\x1b]52;c;ZXZpbA==\x07b", "ab"),
        ("a\x1b]0;title\x1b\\b", "ab"),
        ("a\x1b]0;title\nwhat it hides", "a\nwhat it hides"),
        ("a\x1bPq...\x1b\\b", "ab"),
        ("a\x1b[2J\x1b[1;1Hb\x1bc", "ab"),
        ("a\rb", "a\ufffdb"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("\x9b31m", "\ufffd31m"),
        ("user\u202etxt.exe", "user\ufffdtxt.exe"),
        ("\ud800", "\ufffd"),
        ("na\u00efve \U0001f600", "na\u00efve \U0001f600"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
