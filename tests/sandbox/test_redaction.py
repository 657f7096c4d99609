"""Secrets do not come through, however the output was cut; nothing else is touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.sandbox.redaction import MARK, Redactor, is_secret_name, secret_values


@pytest.mark.parametrize(
    "name",
    [
        *("OPENAI_API_KEY", "X_APIKEY", "GITHUB_TOKEN", "TOKEN", "npm_token", "CLIENT_SECRET"),
        *("AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "DB_PASSWORD_PROD", "PRIVATE_KEY", "GITLAB_PAT"),
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["PATH", "TOKENIZERS_PARALLELISM", "KEYBOARD", "SSH_AUTH_SOCK", "SECRETARY", "OLDPWD"]
)
def test_names_of_other_things(name: str) -> None:
    assert not is_secret_name(name)


def test_values_of_secrets_and_passwords_in_addresses() -> None:
    variables = {
        "A_TOKEN": "first-value",
        "DATABASE_URL": "postgres://me:second-value@db.test/x",
        "HOME": "/home/me",
        "SITE": "https://a.test:8080/x@y",
    }
    assert secret_values(variables) == ["first-value", "second-value"]


def test_each_value_becomes_a_mark() -> None:
    """The longest where several begin; as it stands in JSON and in addresses; line by line."""
    redactor = Redactor(["abcdefgh", "abcdefghij", 'with"quote', "a/b/c/d/e", "line one\nline two"])
    assert redactor.text("x abcdefghij abcdefgh y") == f"x {MARK} {MARK} y"
    assert redactor.text(r'{"a": "with\"quote"} ?k=a%2Fb%2Fc%2Fd%2Fe') == (
        f'{{"a": "{MARK}"}} ?k={MARK}'
    )
    assert redactor.text("line one\r\nline two\r\n") == f"{MARK}\r\n{MARK}\r\n"


def test_short_values_are_left_alone_unless_they_are_meant() -> None:
    """``PASSWORD=true`` must not make every "true" unreadable."""
    assert not Redactor(["true", " seven77 "])
    assert Redactor([], short=["true"]).text("true") == MARK


def test_text_that_is_no_unicode_comes_through() -> None:
    """Names of files may hold such bytes."""
    redactor = Redactor(["secret-value"])
    assert redactor.text("\udcff secret-value \ud800") == f"\udcff {MARK} \ud800"
    assert redactor.data(b"\xff secret-value") == b"\xff ***"


def test_a_value_that_is_cut_off_waits_for_its_rest() -> None:
    """And only as much of the output as may belong to it."""
    stream = Redactor(["secret-value"]).stream()
    assert stream.feed(b"a secret-") == b"a "
    assert stream.feed(b"value b s") == b"*** b "
    assert stream.feed(b"e") == b""
    assert stream.end() == b"se"
    assert stream.end() == b""


LETTERS = st.text("ab", max_size=40)


@given(
    values=st.lists(st.text("ab", min_size=1, max_size=5), max_size=4),
    pieces=st.lists(LETTERS, max_size=6),
)
def test_pieces_make_no_difference(values: list[str], pieces: list[str]) -> None:
    """Few letters and short values, so that they overlap and contain each other."""
    redactor = Redactor([], short=values)
    stream = redactor.stream()
    data = [piece.encode() for piece in pieces]
    streamed = b"".join([*map(stream.feed, data), stream.end()])
    assert redactor.data(b"".join(data)) == streamed
    held = [len(redactor.split(piece)[1]) for piece in data]
    assert all(num < max(map(len, values), default=1) for num in held)


ANY = st.characters(exclude_characters="*")


@given(st.lists(st.text(ANY, min_size=8, max_size=20), max_size=3), st.text(ANY, max_size=60))
def test_no_value_is_left(values: list[str], text: str) -> None:
    """Whatever it is made of, but for what marks are made of."""
    redactor = Redactor(values)
    shown = redactor.text(text + "".join(values))
    lines = [line.strip() for value in values for line in value.splitlines()]
    assert not [line for line in lines if len(line) >= 8 and line in shown]


def test_known_defaults_are_no_secrets() -> None:
    """Source code is full of them, and a patch made from what was blotted out does not fit."""
    variables = {
        "DATABASE_URL": "postgres://postgres:postgres@localhost/app",
        "DB_PASSWORD": "Password",
        "A_TOKEN": "postgres-but-longer",
    }
    assert secret_values(variables) == ["postgres-but-longer"]
