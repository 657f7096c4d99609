"""``exec resume``: what Codex's users type means what they mean by it."""

import pytest

from tightloop.cli.codex_spelling import respelt


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        (["resume", "--last", "go on"], ["--resume", "last", "go on"]),
        (["resume", "--json", "--last", "-"], ["--resume", "last", "--json", "-"]),
        (["resume", "0f3a", "go on"], ["--resume", "0f3a", "go on"]),
        (["resume", "0f3a", "--json", "go on"], ["--resume", "0f3a", "--json", "go on"]),
        (["resume"], ["--resume", ""]),
        (["resume the work"], ["resume the work"]),
        (["--json", "resume"], ["--json", "resume"]),
        ([], []),
    ],
)
def test_words(words: list[str], ours: list[str]) -> None:
    """Only the first word counts: a prompt that begins with it is one word for the shell."""
    assert respelt(words) == ours
