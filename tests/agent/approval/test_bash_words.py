"""What a word of bash becomes, as far as that is known before it runs."""

import pytest

from tightloop.agent.approval.bash_line import parse_line
from tightloop.agent.approval.bash_words import NotUnderstood, Word, known


def only_argument(text: str) -> Word:
    (command,) = [one for one in parse_line(f"x {text}") if one.words[:1]][-1:]
    return command.words[1]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("'a b'", "a b"),
        ('"a b"', "a b"),
        ("a\\ b", "a b"),
        ("r\\m", "rm"),
        ('"a\\"b\\n"', 'a"b\\n'),
        ("'a'\"b\"c", "abc"),
        ("$'a b'", "a b"),
        ("a$", "a$"),
        ('"$"', "$"),
        ("''", ""),
        ("{}", "{}"),
        ("HEAD@{1}", "HEAD@{1}"),
        ("a#b", "a#b"),
        ("a=b", "a=b"),
        ("é", "é"),
    ],
)
def test_words_that_are_known(text: str, value: str) -> None:
    assert only_argument(text).text == value


@pytest.mark.parametrize(
    ("text", "is_single", "can_be_option", "start"),
    [
        ("$x", False, True, ""),
        ('"$x"', True, True, ""),
        ("a$x", False, True, "a"),
        ('"a$x"', True, False, "a"),
        ("*.py", False, True, ""),
        ("./*.py", False, False, "./"),
        ("~/x", True, False, ""),
        ('"$@"', False, True, ""),
        ("${x}y", False, True, ""),
        ("$(ls)", False, True, ""),
        ('"$(ls)"', True, True, ""),
        ("--a=$x", False, True, "--a="),
        ("<(ls)", True, False, "/dev/fd/"),
    ],
)
def test_words_that_are_not(text: str, is_single: bool, can_be_option: bool, start: str) -> None:
    """Unquoted expansions split, so any part of them may come to be an option."""
    word = only_argument(text)
    assert (None, is_single, can_be_option, start) == (
        word.text, word.is_single, word.can_be_option, word.start,
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "'open", '"open', "$(open", "`open", "${x:-y}", "${!x}", "${x[0]}", "$((1))", "$[1]", "{a,b}",
        "{1..3}", "$'\\x41'", '$"x"', "a\\\nb", '"a\\\nb"', "a(b)", "\u00a0x", "\u202ex", "'\u200b'",
        "a\x07", "`a\\`b`", "$((", "\\",
    ],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(NotUnderstood):
        parse_line(f"x {text}")


def test_a_known_word_is_what_a_program_gets() -> None:
    assert (known("-a").can_be_option, known("a").can_be_option) == (True, False)
