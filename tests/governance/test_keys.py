"""Keys: what is accepted, and that a bad configuration is named."""

from pathlib import Path

import pytest

from tightloop.governance.keys import BadKeyError, KeyRing, load_keys


@pytest.mark.parametrize(
    ("header", "is_accepted"),
    [
        ("Bearer one", True),
        ("bearer two", True),
        ("Bearer  two ", True),
        ("Bearer three", False),
        ("Bearer ", False),
        ("Basic one", False),
        ("one", False),
        ("", False),
        (None, False),
        ("Bearer " + "x" * 100_000, False),
        ("Bearer \udcff", False),
    ],
)
def test_only_a_bearer_of_a_known_key_is_accepted(header: str | None, is_accepted: bool) -> None:
    """Scheme in any case, key exact."""
    assert is_accepted is KeyRing(["one", "two"]).accepts(header)


def test_an_empty_ring_is_false_and_accepts_nobody() -> None:
    """No key configured is not the same as every key accepted."""
    assert not KeyRing()
    assert not KeyRing().accepts("Bearer x")


def test_keys_come_from_options_environment_and_file(tmp_path: Path) -> None:
    """All sources count."""
    path = tmp_path / "keys"
    path.write_text("# the team\nfile-key\n\n")
    ring = load_keys(["given"], {"TIGHTLOOP_API_KEYS": "a, b"}, path)
    assert [ring.accepts(f"Bearer {key}") for key in ("given", "a", "b", "file-key")] == [True] * 4


@pytest.mark.parametrize("value", ["", "a,", "has space", "ключ", "x" * 600])
def test_a_bad_key_is_named_by_its_source(value: str) -> None:
    """Nothing is silently dropped: a server must not start more open than was meant."""
    with pytest.raises(BadKeyError, match="TIGHTLOOP_API_KEYS"):
        load_keys([], {"TIGHTLOOP_API_KEYS": value})


def test_a_file_without_keys_is_refused(tmp_path: Path) -> None:
    """An empty key file would otherwise mean an open server."""
    path = tmp_path / "keys"
    path.write_text("# nobody yet\n")
    with pytest.raises(BadKeyError, match="holds no key"):
        load_keys([], {}, path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """By its name."""
    path = tmp_path / "keys"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(BadKeyError, match=r"keys is not a text file"):
        load_keys([], {}, path)
