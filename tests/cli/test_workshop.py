"""The test command that a repository's configuration names."""

from pathlib import Path

import pytest

from tightloop.cli.backend import UsageError
from tightloop.cli.workshop import configured_test_command


def test_the_configured_command(tmp_path: Path) -> None:
    """None where there is no file, no table or no such key."""
    assert configured_test_command(tmp_path) is None
    config = tmp_path / ".tightloop.toml"
    config.write_text("[setup]\n")
    assert configured_test_command(tmp_path) is None
    config.write_text("[test]\n")
    assert configured_test_command(tmp_path) is None
    config.write_text('[test]\ncommand = "make test"\n')
    assert configured_test_command(tmp_path) == "make test"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[test]\ncommand = "rm -rf x"\n', "test.command must be a command line that runs tests"),
        ("[test]\ncommand = 1\n", "got 1"),
        ("[test", "cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / ".tightloop.toml").write_text(text)
    with pytest.raises(UsageError, match=words):
        configured_test_command(tmp_path)
